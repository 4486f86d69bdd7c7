"""The running daemon's control endpoint: one typed request, one typed reply, over a ZeroMQ socket file.

The daemon binds a REP socket to a file that only its own user can open, and looks after it between two
batches, so a request is answered by the thread that owns what is asked about. Requests and replies are JSON.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias, overload

import msgspec
import zmq
from msgspec import Meta

import serstream
from serstream.errors import UNDECODABLE, ControlError, NotRunningError, SerstreamError
from serstream.service.health import Health
from serstream.unix_socket import check_free, connect_error

log = logging.getLogger(__name__)

REQUESTS_PER_POLL = 16
"""Requests answered before the daemon goes on with sound; the rest wait for the next poll."""

TIMEOUT_S = 5.0
"""How long a client waits for a reply: the daemon looks between two batches."""

SERVICE_SOCKET = Path("/run/serstream/control")
"""Of the installed service."""

MAX_PATH_BYTES = 107
"""Room for a path in ``sockaddr_un``, its final zero left out."""

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


Request: TypeAlias = StatusRequest | Activate | Rollback | SetShadow | SetCanary | Reload


class Refusal(msgspec.Struct, frozen=True):
    """Why a model did not become active or shadow."""

    model: str
    reason: str
    time: str
    """UTC, RFC 3339."""


class ComparisonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate beside the active model; see `serstream.feed.messages.ComparisonReport`."""

    name: str
    windows: int = 0
    agreement: float = 0.0
    confidence_shift: float = 0.0
    latency_ms: float = 0.0
    emotions: dict[str, int] = {}


class ShadowStatus(ComparisonStatus, frozen=True, kw_only=True):
    """A candidate that is only compared."""

    skipped: int = 0


class CanaryStatus(ComparisonStatus, frozen=True, kw_only=True):
    """A candidate that scores a share of the calls."""

    share: float
    calls: int = 0
    errors: int = 0


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The model in use, and what is going on around it."""

    name: str
    """``name@version``."""
    path: str
    labels: tuple[str, ...]
    providers: tuple[str, ...]
    """Execution providers that its session really uses, best first."""
    previous: str = ""
    """Where a rollback goes; empty: nowhere."""
    loading: str = ""
    """What is being inspected and loaded beside it."""
    fallback: bool = False
    """Whether the one before scores, because the one that should could not be loaded or failed."""
    swaps: int = 0
    """Models exchanged since the start."""
    refusals: int = 0
    refusal: Refusal | None = None
    """The last one."""
    shadow: ShadowStatus | None = None
    canary: CanaryStatus | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True, tag_field="reply", tag="status"):
    """Answers a `StatusRequest` or a `Reload`."""

    version: str = serstream.__version__
    """Of serstream."""
    pid: int
    started: str
    """UTC, RFC 3339."""
    uptime_s: float
    feed: str
    """Endpoint of the feed."""
    streams: int
    """Alive now."""
    model: ModelStatus
    health: Health = Health()


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


def socket_path(configured: str, base: Path = Path()) -> Path:
    """Where the endpoint is.

    Args:
        configured: ``control.socket``, relative to ``base``. Empty: ``control`` in systemd's runtime
            directory; without systemd in /run/serstream for root, else in ``$XDG_RUNTIME_DIR/serstream``,
            else in a directory of the user's own among the temporary files.
        base: folder of the configuration file.
    """
    if configured:
        return (base / configured).absolute()
    if directory := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(directory.partition(":")[0], "control")
    if os.getuid() == 0:
        return SERVICE_SOCKET
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(directory, "serstream", "control")
    return Path(tempfile.gettempdir(), f"serstream-{os.getuid()}", "control")


def find_socket(configured: str, base: Path = Path()) -> Path:
    """Where a command asks: at `socket_path`, else, if none is configured, the service that is installed.

    The service's own user has no ``$RUNTIME_DIRECTORY`` in a shell, and would take it for stopped.
    """
    path = socket_path(configured, base)
    if configured or os.path.exists(path) or not os.path.exists(SERVICE_SOCKET):
        return path
    return SERVICE_SOCKET


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
        _make_private_directory(self.path.parent)
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
def ask(
    path: Path, request: Activate | Rollback | SetShadow | SetCanary, timeout_s: float = TIMEOUT_S
) -> Accepted: ...


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


def _make_private_directory(directory: Path) -> None:
    """The socket's directory, ours alone if it must be made; a stranger's is refused."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise ControlError(
            f"control socket: cannot make {directory}: {error.strerror}; set control.socket"
        ) from error
    if status.st_uid not in (0, os.getuid()):
        raise ControlError(
            f"control socket: {directory} belongs to user {status.st_uid}, not to us; set control.socket"
        )
