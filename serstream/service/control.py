"""The running daemon's control endpoint: one typed request, one typed reply, over a ZeroMQ socket file.

The daemon binds a REP socket to a file that only its own user can open, and looks after it between two
batches, so a request is answered by the thread that owns what is asked about. Requests and replies are JSON.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias, overload

import msgspec
import zmq
from msgspec import Meta

import serstream
from serstream.errors import UNDECODABLE, ControlError, NotRunningError, SerstreamError
from serstream.service.control_path import make_private_directory
from serstream.service.status import Status
from serstream.unix_socket import check_free, connect_error

log = logging.getLogger(__name__)

REQUESTS_PER_POLL = 16
"""Requests answered before the daemon goes on with sound; the rest wait for the next poll."""

TIMEOUT_S = 5.0
"""How long a client waits for a reply: the daemon looks between two batches."""

_BIND_ADVICE = {
    errno.EADDRINUSE: "another serstream listens there; stop it, or set control.socket",
    errno.EEXIST: "a file that is no socket is there; move it away, or set control.socket",
}


class StatusRequest(msgspec.Struct, frozen=True, tag_field="request", tag="status"):
    """Asks how the daemon is."""


class Activate(msgspec.Struct, frozen=True, tag_field="request", tag="activate"):
    """Asks for another model; `Accepted` says that it is being loaded, the status how it went."""

    model: str
    """``name@version``, or ``name`` for its newest version."""


class Rollback(msgspec.Struct, frozen=True, tag_field="request", tag="rollback"):
    """Asks for the model that was active before."""


class SetCanary(msgspec.Struct, frozen=True, tag_field="request", tag="canary"):
    """Asks to let a model score a share of the calls; answered as `Activate` is."""

    model: str
    """As in `Activate`; empty: end it."""
    share: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Of the calls that begin; None: ``model.canary_share``."""


class SetShadow(msgspec.Struct, frozen=True, tag_field="request", tag="shadow"):
    """Asks to compare a model with the active one; answered as `Activate` is."""

    model: str
    """As in `Activate`; empty: end the comparison."""


class Reload(msgspec.Struct, frozen=True, tag_field="request", tag="reload"):
    """Asks to read the configuration again; answered when that is done."""


Change: TypeAlias = Activate | Rollback | SetShadow | SetCanary
Request: TypeAlias = StatusRequest | Change | Reload


class Accepted(msgspec.Struct, frozen=True, tag_field="reply", tag="accepted"):
    """Answers a request that takes time."""

    model: str
    """``name@version`` that is being loaded, or that went."""
    refusals: int = 0
    """Models refused before; how the status tells a refusal of this one from an earlier one."""


class Refused(msgspec.Struct, frozen=True, tag_field="reply", tag="refused"):
    """Answers a request that cannot be granted."""

    reason: str


Reply: TypeAlias = Status | Accepted | Refused

_request_decoder = msgspec.json.Decoder(Request)
_status_decoder = msgspec.json.Decoder(Status | Refused)
_accepted_decoder = msgspec.json.Decoder(Accepted | Refused)


class ControlServer:
    """The daemon's half. Never waits; belongs to the thread that made it.

    Raises:
        ControlError: the socket cannot be bound, or another daemon listens there.
    """

    def __init__(self, path: Path):
        self.path = path
        self._endpoint = f"ipc://{path}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.linger = 0
        self._file: tuple[int, int] | None = None
        """Which file is ours; what somebody else has put in its place has another identity."""
        try:
            self._bind()
        except ControlError:
            self.close()
            raise

    def poll(self, answer: Callable[[Request], Reply]) -> None:
        """Answer what has arrived; a SerstreamError of ``answer`` becomes a refusal."""
        for _ in range(REQUESTS_PER_POLL):
            if not self._socket.poll(0):
                return
            request = b"".join(self._socket.recv_multipart())
            self._socket.send(self._reply(request, answer))

    def look_after_file(self) -> None:
        """Bind again if the file has vanished, as ``$XDG_RUNTIME_DIR`` does with its user's last logout."""
        found = _identity(self.path)
        if found == self._file:
            return
        if found:
            log.warning(
                "control socket %s: another file is in its place; no command reaches this daemon until it "
                "is gone",
                self.path,
            )
            return
        try:
            self._bind()
        except ControlError as error:
            log.warning("%s; until then no command reaches this daemon", error)
        else:
            log.warning("control socket %s was gone: bound again", self.path)

    def close(self) -> None:
        """Let go of the socket file."""
        if self._file and self._file == _identity(self.path):
            self.path.unlink()
        self._socket.close()
        self._context.term()

    def _bind(self) -> None:
        make_private_directory(self.path.parent)
        try:
            check_free(self.path)
            self.path.unlink(missing_ok=True)  # of a daemon that was killed
            with socket.socket(socket.AF_UNIX) as listener:
                os.fchmod(listener.fileno(), 0o600)  # the file to come has this mode from its first moment on
                listener.bind(os.fspath(self.path))
                listener.listen()
                # Given a descriptor ZeroMQ leaves files alone; else it would remove even what is not ours.
                if self._file:
                    self._socket.unbind(self._endpoint)
                self._socket.set(zmq.USE_FD, listener.fileno())
                self._socket.bind(self._endpoint)
                listener.detach()
        except (OSError, zmq.ZMQError) as error:
            advice = _BIND_ADVICE.get(
                error.errno or 0, f"cannot bind it: {error.strerror or error}; set control.socket"
            )
            raise ControlError(f"control socket {self.path}: {advice}") from error
        self._file = _identity(self.path)

    def _reply(self, frame: bytes, answer: Callable[[Request], Reply]) -> bytes:
        try:
            return msgspec.json.encode(self._answer(frame, answer))
        except UnicodeEncodeError as error:  # names of files may be anything
            return msgspec.json.encode(Refused(f"the answer is not UTF-8: {error.object!a}"))

    def _answer(self, frame: bytes, answer: Callable[[Request], Reply]) -> Reply:
        try:
            request = _request_decoder.decode(frame)
        except UNDECODABLE as error:
            return Refused(f"serstream {serstream.__version__} does not know this request: {error}")
        try:
            return answer(request)
        except SerstreamError as error:
            return Refused(str(error))


@overload
def ask(path: Path, request: StatusRequest | Reload, timeout_s: float = TIMEOUT_S) -> Status: ...


@overload
def ask(path: Path, request: Change, timeout_s: float = TIMEOUT_S) -> Accepted: ...


def ask(path: Path, request: Request, timeout_s: float = TIMEOUT_S) -> Status | Accepted:
    """Put a request to the daemon that listens at ``path``.

    Raises:
        NotRunningError: nobody listens there.
        ControlError: the request is not UTF-8, refused, not allowed, or not answered in time.
    """
    try:
        payload = msgspec.json.encode(request)
    except UnicodeEncodeError as fault:
        raise ControlError(f"the request holds {fault.object!a}, wanted UTF-8") from fault
    if error := connect_error(path):
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            raise NotRunningError(
                f"no daemon listens at {path}; start it with 'serstream run', or name its control.socket"
            ) from error
        raise ControlError(
            f"control socket {path}: {error.strerror}; ask as root, or as the user that the daemon runs as"
        ) from error
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.linger = 0
        client.connect(f"ipc://{path}")
        client.send(payload)
        if not client.poll(round(1000 * timeout_s)):
            raise ControlError(
                f"the daemon at {path} has not answered within {timeout_s:g} s; its log may say why"
            )
        frame = client.recv()
    decoder = _status_decoder if isinstance(request, StatusRequest | Reload) else _accepted_decoder
    try:
        reply: Reply = decoder.decode(frame)
    except UNDECODABLE as error:
        raise ControlError(
            f"the daemon at {path} answered {frame[:80]!r}: {error}; use a serstream of its version"
        ) from error
    if isinstance(reply, Refused):
        raise ControlError(reply.reason)
    return reply


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is there, by device and inode; None: none, or none that we may see."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
