import logging
import socket
from pathlib import Path

import pytest

from serstream.service.journal import JournalHandler, under_journal


def test_a_record_carries_priority_and_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(10)
        handler = JournalHandler(str(tmp_path / "journal"))
        handler.handle(
            logging.LogRecord("serstream.x", logging.WARNING, "f.py", 7, "two\n%s", ("lines",), None)
        )
        sent = journal.recv(65536)
    assert b"MESSAGE\n" + (9).to_bytes(8, "little") + b"two\nlines\n" in sent
    assert b"PRIORITY\n" + (1).to_bytes(8, "little") + b"4\n" in sent
    assert b"serstream.x\n" in sent


def test_what_the_journal_does_not_take_is_still_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    JournalHandler(str(tmp_path / "none")).handle(
        logging.LogRecord("x", logging.ERROR, "f.py", 7, "heard", None, None)
    )
    assert capsys.readouterr().err == "heard\n"


def test_a_terminal_is_not_the_journal() -> None:
    assert not under_journal({})
    assert not under_journal({"JOURNAL_STREAM": "1:2"})
