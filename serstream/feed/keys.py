"""Files with CurveZMQ keys (RFC 26), one pair per client.

A keys directory holds ``server.toml`` (the daemon's pair, secret) and ``clients/NAME.public``, one line each:
the allow-list. Removing such a file revokes the client. The daemon may read its pair from elsewhere, so that
it needs no access to that secret. The client's own file holds its pair and the daemon's public
key, and is all that it needs.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import tomllib
from contextlib import suppress
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from serstream.errors import FeedError

logger = logging.getLogger(__name__)


class ServerKeys(msgspec.Struct, frozen=True):
    """A keys directory as the daemon sees it."""

    directory: Path
    public: str
    """Z85, 40 characters."""
    secret: str

    @staticmethod
    def load(directory: Path, pair: Path | None = None) -> ServerKeys:
        """Read the daemon's pair.

        Args:
            directory: the keys directory.
            pair: where the pair is; None: ``server.toml`` in the directory.

        Raises:
            FeedError: it is missing or broken, or the allow-list may not be read.
        """
        keys = _read(
            pair or directory / "server.toml", ("public", "secret"), "make it with 'serstream keys new NAME'"
        )
        server = ServerKeys(directory, keys["public"], keys["secret"])
        try:
            server._entries()
        except OSError as error:
            raise FeedError(
                f"keys {error.filename}: cannot list the clients' keys: {error.strerror}; "
                "let the daemon's user read that folder"
            ) from error
        return server

    def clients(self) -> dict[bytes, str]:
        """The allow-list: public key, as 32 bytes, to client name. Logs and leaves out unreadable entries."""
        found, faults = {}, []
        try:
            entries = self._entries()
        except OSError as error:
            entries = []
            faults.append(str(error))
        for path in entries:
            try:
                found[_decode(path.read_text(encoding="ascii").strip())] = path.stem
            except (OSError, ValueError) as error:
                faults.append(f"{path}: {error}")
        if faults:
            logger.warning("feed: invalid client keys are ignored: %s", "; ".join(faults))
        return found

    def stamp(self) -> object:
        """Another one when an entry of the allow-list came, went, was written over or may be read now.

        Raises:
            OSError: the folder cannot be listed.
        """
        return [(path.name, _stamp(path)) for path in self._entries()]

    def _entries(self) -> list[Path]:
        """Files of the allow-list. Raises an OSError if they may not be listed; without a folder: none."""
        folder = self.directory / "clients"
        try:
            return sorted(folder / name for name in os.listdir(folder) if name.endswith(".public"))
        except FileNotFoundError:
            return []


class ClientKeys(msgspec.Struct, frozen=True):
    """What a subscriber needs to connect."""

    server: str
    """The daemon's public key, Z85."""
    public: str
    secret: str

    @staticmethod
    def load(path: Path) -> ClientKeys:
        """Read the file that ``serstream keys new`` wrote.

        Raises:
            FeedError: it is missing or broken.
        """
        keys = _read(path, ("server", "public", "secret"), "ask for one made with 'serstream keys new NAME'")
        return ClientKeys(**keys)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket use them; before it connects."""
        socket.curve_serverkey = self.server.encode()
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()


def new_client(directory: Path, name: str, to: Path) -> None:
    """Make a key pair for a client, and one for the daemon if there is none.

    Args:
        directory: the keys directory; made when missing.
        name: the client's, for the logs: letters, digits, ``.``, ``_`` and ``-``.
        to: file for the client, readable by its owner only; hand it over a safe way and delete it here.

    Raises:
        FeedError: the name cannot be used or is taken, or a file cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise FeedError(f"client name {name!r}: wanted 1 to 64 letters, digits, '.', '_' or '-'")
    entry = directory / "clients" / f"{name}.public"
    try:
        if entry.exists():
            raise FeedError(
                f"client {name!r} has a key already: {entry}; remove that file to revoke it first"
            )
        for folder in (directory, entry.parent):
            if not folder.exists():
                folder.mkdir(parents=True)
                folder.chmod(0o755)  # whatever the umask: the daemon's user shall read the allow-list
        if not (directory / "server.toml").exists():
            public, secret = (key.decode() for key in zmq.curve_keypair())
            _write_new(
                directory / "server.toml",
                f'# Key pair of the serstream daemon; secret.\npublic = "{public}"\nsecret = "{secret}"\n',
                0o600,
            )
        server = ServerKeys.load(directory)
        public, secret = (key.decode() for key in zmq.curve_keypair())
        unfinished = directory / f"{name}.unfinished"  # in the allow-list it appears whole, in one step
        unfinished.unlink(missing_ok=True)
        _write_new(unfinished, f"{public}\n", 0o644)
        try:
            _write_new(
                to,
                f"# serstream client key of {name}. Whoever has this file can listen to the feed.\n"
                f'server = "{server.public}"\npublic = "{public}"\nsecret = "{secret}"\n',
                0o600,
            )
            unfinished.rename(entry)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise FeedError(
            f"keys for client {name!r}: cannot write {error.filename}: {error.strerror}; give another "
            "directory (--keys) or file (-o)"
        ) from error


def _read(path: Path, wanted: tuple[str, ...], mend: str) -> dict[str, str]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FeedError(f"keys {path}: cannot read them: {error.strerror}; {mend}") from error
    except ValueError as error:  # not UTF-8, not TOML, or a zero byte in the name
        raise FeedError(f"keys {path}: not a key file: {error}; {mend}") from error
    if absent := [name for name in wanted if name not in table]:
        raise FeedError(f"keys {path}: no key file, it has no {' and no '.join(absent)}; {mend}")
    for name in wanted:
        try:
            _decode(table[name])
        except ValueError as error:
            raise FeedError(f"keys {path}: {name} is {error}; {mend}") from error
    return {name: table[name] for name in wanted}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _decode(key: object) -> bytes:
    """The 32 bytes of a key. Raises a ValueError, which may be logged, if it is none."""
    if isinstance(key, str) and len(key) == 40:
        with suppress(KeyError, ValueError, struct.error):
            return z85.decode(key)
    raise ValueError("not a key of 40 characters, Z85")


def _write_new(path: Path, text: str, mode: int) -> None:
    """Whole or not at all, never over another file, never readable by others than ``mode`` says.

    Raises:
        OSError: with the file's name, which that of a full disk lacks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, mode)  # whatever the umask
    except OSError as error:
        path.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
