import os
from pathlib import Path

import pytest

from serstream.service import control_path
from serstream.service.control_path import find_socket, socket_path


def test_the_socket_is_where_the_user_may_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert socket_path("") == Path("/run/user/1000/serstream/control")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_path("").parts[-2:] == ("serstream-1000", "control")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert socket_path("") == Path("/run/serstream/control")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/serstream-2:/run/other")
    assert socket_path("") == Path("/run/serstream-2/control")
    assert socket_path("c.sock", Path("/etc/serstream")) == Path("/etc/serstream/c.sock")


def test_without_a_socket_of_its_own_a_command_asks_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    service = tmp_path / "service"
    monkeypatch.setattr(control_path, "SERVICE_SOCKET", service)
    assert find_socket("") == tmp_path / "control"
    service.touch()
    assert find_socket("") == service
    assert find_socket("c.sock", tmp_path) == tmp_path / "c.sock"
    (tmp_path / "control").touch()
    assert find_socket("") == tmp_path / "control"
