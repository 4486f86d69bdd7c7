import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from waiting import until

from serstream.errors import ControlError, ModelError, NotRunningError
from serstream.service.control import (
    Activate,
    ControlServer,
    Reply,
    Request,
    StatusRequest,
    ask,
)
from serstream.service.status import ModelStatus, Status

STATUS = Status(
    pid=1,
    started="2026-01-01T00:00:00.000Z",
    uptime_s=1.0,
    feed="tcp://127.0.0.1:5556",
    streams=2,
    model=ModelStatus(name="tiny@1", path="model.onnx", labels=("sad",), providers=("CPU",)),
)


NOT_UTF8 = [b'{"request":"activate","model":"caf\xe9@1"}']


def status(_request: Request) -> Reply:
    return STATUS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    server = ControlServer(tmp_path / "run" / "control")
    yield server
    server.close()


def exchange(
    server: ControlServer, frames: list[bytes], answer: Callable[[Request], Reply] = status
) -> object:
    """What a client of any kind gets back for its frames."""
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.linger = 0
        client.connect(f"ipc://{server.path}")
        client.send_multipart(frames)
        while not client.poll(1):
            server.poll(answer)
        return msgspec.json.decode(client.recv())


def test_a_request_of_another_process_is_answered(server: ControlServer) -> None:
    code = (
        "import sys; from pathlib import Path; from serstream.service.control import StatusRequest, ask;"
        "print(ask(Path(sys.argv[1]), StatusRequest(), 30).model.name)"
    )
    client = subprocess.Popen([sys.executable, "-c", code, str(server.path)], stdout=subprocess.PIPE)

    def is_over() -> bool:
        server.poll(status)
        return client.poll() is not None

    assert until(is_over)
    output, _ = client.communicate()
    assert output == b"tiny@1\n"


@pytest.mark.parametrize(
    "frames", [[b""], [b"\xff\x00"], [b"[]"], [b'{"request":"format"}'], NOT_UTF8, [b"a", b"b"]]
)
def test_what_is_no_request_is_refused(server: ControlServer, frames: list[bytes]) -> None:
    reply = exchange(server, frames)
    assert isinstance(reply, dict)
    assert reply["reply"] == "refused"
    assert "does not know this request" in reply["reason"]
    assert exchange(server, [b'{"request":"status"}']) == msgspec.json.decode(msgspec.json.encode(STATUS))


def test_an_error_of_the_daemon_becomes_the_clients(server: ControlServer) -> None:
    def refuse(_request: Request) -> Reply:
        raise ModelError("model x@1: no such version")

    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.poll(refuse)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(ControlError, match="model x@1: no such version"):
            ask(server.path, StatusRequest())
    finally:
        over.set()
        thread.join()


def test_an_answer_that_is_not_utf8_becomes_a_refusal(server: ControlServer) -> None:
    def refuse(_request: Request) -> Reply:
        raise ModelError("model x@1: not in /caf\udce9")

    reply = exchange(server, [b'{"request":"status"}'], refuse)
    assert isinstance(reply, dict)
    assert reply["reply"] == "refused" and r"/caf\udce9" in reply["reason"]


def test_a_request_that_is_not_utf8_is_not_put(server: ControlServer) -> None:
    with pytest.raises(ControlError, match=r"the request holds 'caf\\udce9@1', wanted UTF-8"):
        ask(server.path, Activate("caf\udce9@1"))


def test_a_daemon_that_hangs_does_not_hang_its_client(server: ControlServer) -> None:
    with pytest.raises(ControlError, match=r"has not answered within 0\.01 s"):
        ask(server.path, StatusRequest(), 0.01)


def test_only_the_user_of_the_daemon_may_ask(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700


def test_another_user_is_told_whom_to_ask_as(server: ControlServer) -> None:
    server.path.chmod(0)
    own = os.geteuid()
    with contextlib.ExitStack() as stack:
        if own == 0:  # whom no mode keeps out
            os.seteuid(65534)
            stack.callback(os.seteuid, own)
        with pytest.raises(
            ControlError, match="Permission denied; ask as root, or as the user that the daemon"
        ):
            ask(server.path, StatusRequest())


def test_a_second_daemon_does_not_steal_the_socket(server: ControlServer) -> None:
    with pytest.raises(ControlError, match="another serstream listens there"):
        ControlServer(server.path)


def test_the_socket_of_a_killed_daemon_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "control"
    code = (
        "import os, sys; from pathlib import Path; from serstream.service.control import ControlServer;"
        "ControlServer(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists()
    with pytest.raises(NotRunningError, match="no daemon listens"):
        ask(path, StatusRequest())
    with contextlib.closing(ControlServer(path)) as server:
        assert exchange(server, [b'{"request":"status"}']) == msgspec.json.decode(msgspec.json.encode(STATUS))


def test_a_socket_file_that_vanished_is_bound_again(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    known = msgspec.json.decode(msgspec.json.encode(STATUS))
    for _ in range(2):
        shutil.rmtree(server.path.parent)
        server.look_after_file()
        server.look_after_file()
        assert exchange(server, [b'{"request":"status"}']) == known
    assert caplog.messages == [f"control socket {server.path} was gone: bound again"] * 2
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700
    server.close()
    assert not server.path.exists()


def test_while_it_cannot_be_bound_again_that_is_told(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(server.path.parent)
    server.path.parent.touch()
    server.look_after_file()
    assert "cannot make" in caplog.text and "no command reaches this daemon" in caplog.text
    server.poll(status)
    server.path.parent.unlink()
    server.look_after_file()
    assert exchange(server, [b'{"request":"status"}'])


def test_the_socket_that_another_daemon_has_by_now_is_left_to_it(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.path.unlink()
    with contextlib.closing(ControlServer(server.path)) as other:
        server.look_after_file()
        assert "another file is in its place" in caplog.text
        server.close()
        assert exchange(other, [b'{"request":"status"}'])


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(ControlError, match=r"notes\.txt: a file that is no socket is there; move it away"):
        ControlServer(path)
    assert path.read_text() == "dear diary"


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot bind it: AF_UNIX path too long"):
        ControlServer(tmp_path / ("x" * 120))
