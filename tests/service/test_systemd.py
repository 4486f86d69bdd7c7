import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serstream.service.notifier import Notifier
from serstream.service.shelf import SocketShelf, inherited_sockets


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket at which systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def notifier(systemd: socket.socket, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": systemd.getsockname(), **more})


def messages(systemd: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(systemd.recv(4096))
        except BlockingIOError:
            return found


def test_states_are_told_in_systemds_words(systemd: socket.socket) -> None:
    told = notifier(systemd)
    told.ready()
    told.reloading(1.5)
    told.ready()
    told.stopping()
    assert messages(systemd) == [
        b"READY=1",
        b"RELOADING=1\nMONOTONIC_USEC=1500000",
        b"READY=1",
        b"STOPPING=1",
    ]


def test_a_status_is_told_once(systemd: socket.socket) -> None:
    told = notifier(systemd)
    for text in ("1 stream", "1 stream", "2 streams"):
        told.status(text)
    assert messages(systemd) == [b"STATUS=1 stream", b"STATUS=2 streams"]


def test_the_watchdog_is_fed_by_progress_four_times_per_interval(systemd: socket.socket) -> None:
    told = notifier(systemd, WATCHDOG_USEC="4000000")
    for tenths in range(30):
        told.progress(tenths / 10)
    assert messages(systemd) == [b"WATCHDOG=1"] * 3


def test_no_watchdog_no_ping(systemd: socket.socket) -> None:
    notifier(systemd).progress(1.0)
    assert messages(systemd) == []


def test_without_systemd_nothing_is_told_and_nothing_fails() -> None:
    environment: dict[str, str] = {}
    told = Notifier(environment)
    told.ready()
    told.progress(1.0)


def test_children_inherit_none_of_it(systemd: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1", "LISTEN_FDS": "0", "A": "b"}
    Notifier(environment)
    inherited_sockets(environment, os.getpid())
    assert environment == {"A": "b"}


def test_an_abstract_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{tmp_path}")
        listener.settimeout(10)
        Notifier({"NOTIFY_SOCKET": f"@{tmp_path}"}).ready()
        assert listener.recv(100) == b"READY=1"


def test_a_service_manager_that_is_gone_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "cannot notify it of READY=1" in caplog.text


def bind(address: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    udp.settimeout(10)
    return udp


def test_a_new_socket_is_stored_and_the_stored_one_is_the_same(systemd: socket.socket) -> None:
    shelf = SocketShelf(notifier(systemd), {})
    with shelf.open("127.0.0.1", 0, bind) as opened:
        message, (descriptor, *_), _, _ = socket.recv_fds(systemd, 100, 1)
        assert message == b"FDSTORE=1\nFDNAME=udp-127-0-0-1-0\nFDPOLL=0"
        with socket.socket(fileno=descriptor) as kept:
            assert kept.getsockname() == opened.getsockname()
    shelf.release("127.0.0.1", 0)
    assert messages(systemd) == [b"FDSTOREREMOVE=1\nFDNAME=udp-127-0-0-1-0"]


@pytest.mark.parametrize("written", ["::1", "0:0:0:0:0:0:0:1", "::0001"])
def test_an_inherited_socket_is_found_however_its_address_is_written(
    systemd: socket.socket, written: str
) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as inherited:
        inherited.bind(("::1", 0))
        address, port = inherited.getsockname()[:2]
        shelf = SocketShelf(notifier(systemd), {(address, port): ("rtp", inherited)})
        assert shelf.open(written, port, bind) is inherited


def test_an_inherited_socket_is_used_and_not_stored_again(systemd: socket.socket) -> None:
    with bind("127.0.0.1", 0) as inherited:
        shelf = SocketShelf(notifier(systemd), {inherited.getsockname(): ("rtp", inherited)})
        assert shelf.open(*inherited.getsockname(), bind) is inherited
        shelf.close_unused()
        assert inherited.fileno() >= 0
    assert messages(systemd) == []


def test_sockets_that_nobody_wants_are_named_closed_and_forgotten(
    systemd: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    inherited = {socket.getsockname(): ("rtp", socket) for socket in (bind("127.0.0.1", 0) for _ in range(2))}
    SocketShelf(notifier(systemd), inherited).close_unused()
    assert [unused.fileno() for _, unused in inherited.values()] == [-1, -1]
    assert messages(systemd) == [b"FDSTOREREMOVE=1\nFDNAME=rtp"] * 2
    (told,) = caplog.messages
    assert ", ".join(f"{address}:{port}" for address, port in inherited) in told


HEIR = """
import os
from serstream.service.shelf import inherited_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
for address, (name, udp) in inherited_sockets(os.environ, os.getpid()).items():
    print(address[1], name, udp.recv(100).decode(), os.get_inheritable(udp.fileno()))
"""


def test_packets_that_came_before_the_heir_are_not_lost() -> None:
    with bind("127.0.0.1", 0) as udp, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stranger:
        udp.sendto(b"waiting", udp.getsockname())
        # Descriptors 3 and 4 of the child, as systemd passes them.
        launch = f"exec 3<&{udp.fileno()} 4<&{stranger.fileno()}; exec {sys.executable} -c '{HEIR}'"
        done = subprocess.run(
            ["bash", "-c", launch],
            pass_fds=[udp.fileno(), stranger.fileno()],
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "rtp:other"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [str(udp.getsockname()[1]), "rtp", "waiting", "False"]


def test_sockets_for_another_process_are_left_alone() -> None:
    assert inherited_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, os.getpid()) == {}
