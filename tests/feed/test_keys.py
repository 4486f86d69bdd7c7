import errno
import logging
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from scripted_feed import call
from waiting import until

from serstream.config import FeedSettings
from serstream.errors import FeedError
from serstream.feed import Subscription, subscribe
from serstream.feed.gatekeeper import REREAD_INTERVAL_S, Gatekeeper
from serstream.feed.keys import ClientKeys, ServerKeys, new_client
from serstream.feed.protocol import snapshot_endpoint
from serstream.feed.publisher import Publisher
from serstream.pacing import FIRST_PAUSE_S
from serstream.service.log_limit import MAX_KINDS, GrowingPauses


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    directory = tmp_path / "keys"
    for name in ("anna", "ben"):
        new_client(directory, name, tmp_path / f"{name}.toml")
    return directory


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/feed"


@pytest.fixture
def publisher(keys: Path, endpoint: str) -> Iterator[Publisher]:
    publisher = Publisher(FeedSettings(endpoint=endpoint, keys=str(keys), heartbeat_s=0.05))
    publisher.publish(call("a")[:5])
    yield publisher
    publisher.close()


def turn_until(publisher: Publisher, done: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    """Keep a daemon's loop going until something happens."""

    def turned() -> bool:
        publisher.poll(time.monotonic(), 0.0)
        return done()

    return until(turned, timeout_s)


def hears(publisher: Publisher, subscription: Subscription, timeout_s: float = 5.0) -> bool:
    return turn_until(publisher, lambda: bool(subscription.receive(0)), timeout_s)


def test_an_allowed_client_hears_the_feed(publisher: Publisher, endpoint: str, tmp_path: Path) -> None:
    with subscribe(endpoint, keys=tmp_path / "anna.toml") as subscription:
        assert hears(publisher, subscription)
    assert publisher.counters.refused == 0


def test_an_allowed_client_may_ask_for_the_call_with_the_longest_name(
    publisher: Publisher, endpoint: str, tmp_path: Path
) -> None:
    longest = "x" * 64 + "-call-123456"
    publisher.publish(call(longest)[:5])
    with subscribe(endpoint, keys=tmp_path / "anna.toml", calls=[longest]) as subscription:
        assert hears(publisher, subscription)


def test_messages_that_are_asked_for_again_are_counted_by_the_name_of_the_key(
    publisher: Publisher, endpoint: str, tmp_path: Path
) -> None:
    with zmq.Context() as context:
        for name in ("anna", "ben", "anna"):
            with context.socket(zmq.DEALER) as client:
                client.linger = 0
                ClientKeys.load(tmp_path / f"{name}.toml").apply(client)
                client.connect(snapshot_endpoint(endpoint))
                client.send(b'{"request":"missed","call":"a","stream":"-","first":0}')
                assert turn_until(publisher, lambda: bool(client.poll(0)))
    asked = publisher.counters.repeated
    assert set(asked) == {"anna", "ben"}
    assert asked["anna"] == 2 * asked["ben"] > 0


def test_a_client_without_keys_gets_nothing_and_an_error(publisher: Publisher, endpoint: str) -> None:
    with subscribe(endpoint) as subscription, pytest.raises(FeedError, match="the daemon wants keys"):
        hears(publisher, subscription)


def test_a_bare_socket_without_keys_gets_not_one_frame(publisher: Publisher, endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as bare:
        bare.linger = 0
        bare.subscribe(b"")
        bare.connect(endpoint)
        assert not turn_until(publisher, lambda: bool(bare.poll(0)), timeout_s=0.5)
        # It keeps trying. A client that leaves at once may be gone before the daemon sees what it wanted.
        assert turn_until(publisher, lambda: publisher.counters.refused > 0)


def test_a_client_with_wrong_keys_is_refused_and_logged_once(
    publisher: Publisher, endpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new_client(tmp_path / "other", "eve", tmp_path / "eve.toml")
    right = ClientKeys.load(tmp_path / "anna.toml")
    wrong = ClientKeys.load(tmp_path / "eve.toml")
    forged = tmp_path / "forged.toml"
    forged.write_text(f'server = "{right.server}"\npublic = "{wrong.public}"\nsecret = "{wrong.secret}"\n')
    for _ in range(2):
        with (
            subscribe(endpoint, keys=forged) as subscription,
            pytest.raises(FeedError, match="refuses this key"),
        ):
            hears(publisher, subscription)
    publisher.poll(time.monotonic() + FIRST_PAUSE_S, 0.0)
    (line,) = (message for message in caplog.messages if "not allowed" in message)
    assert wrong.public in line


def test_all_clients_that_are_refused_at_once_are_named(
    publisher: Publisher, endpoint: str, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("anna", "ben"):
        (keys / "clients" / f"{name}.public").unlink()
    publisher.poll(now := time.monotonic(), 0.0)
    publisher.poll(now := now + REREAD_INTERVAL_S, 0.0)
    with (
        subscribe(endpoint, keys=tmp_path / "anna.toml"),
        subscribe(endpoint, keys=tmp_path / "ben.toml"),
    ):
        deadline = time.monotonic() + 5.0
        while publisher.counters.refused < 4 and time.monotonic() < deadline:  # each at both sockets
            publisher.poll(now, 0.0)
            time.sleep(0.002)
    publisher.poll(now + FIRST_PAUSE_S, 0.0)
    lines = [message for message in caplog.messages if "not allowed" in message]
    assert len(lines) <= 2
    for name in ("anna", "ben"):
        assert ClientKeys.load(tmp_path / f"{name}.toml").public in "".join(lines)


def test_all_clients_that_are_refused_are_named_however_many(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gatekeeper = Gatekeeper(context, ServerKeys.load(keys))
    with context.socket(zmq.REQ) as server:
        server.connect("inproc://zeromq.zap.01")
        for i in range(MAX_KINDS + 10):
            server.send_multipart([b"1.0", b"1", b"", f"10.0.0.{i}".encode(), b"", b"CURVE", bytes(32)])
            gatekeeper.poll(100.0 + 60 * i, strangers=0)
            server.recv_multipart()
    gatekeeper.close()
    context.term()
    limit = GrowingPauses()
    named = [each.getMessage().split()[-1] for each in caplog.records if limit.filter(each)]
    assert named == [f"10.0.0.{i}" for i in range(MAX_KINDS + 10)]


def test_strangers_are_told_ever_more_rarely_and_none_is_left_out(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gatekeeper = Gatekeeper(context, ServerKeys.load(keys))
    for second in range(64):
        gatekeeper.poll(100.0 + second, strangers=5)
    gatekeeper.close()
    context.term()
    limit = GrowingPauses()
    told = [re.findall(r"refused (\d+) ", each.getMessage()) for each in caplog.records if limit.filter(each)]
    assert told == [["5"], ["5"], ["10"], ["20"], ["40"], ["80"], ["160"]]


def test_a_client_that_expects_another_daemon_hears_nothing(
    publisher: Publisher, endpoint: str, tmp_path: Path
) -> None:
    new_client(tmp_path / "other", "eve", tmp_path / "eve.toml")
    with subscribe(endpoint, keys=tmp_path / "eve.toml") as subscription:
        assert not hears(publisher, subscription, timeout_s=0.5)
    assert turn_until(publisher, lambda: publisher.counters.refused > 0)


def test_a_revoked_client_is_cut_off_and_the_others_miss_nothing(
    publisher: Publisher, endpoint: str, tmp_path: Path, keys: Path
) -> None:
    messages = call("b")
    with (
        subscribe(endpoint, keys=tmp_path / "anna.toml") as anna,
        subscribe(endpoint, keys=tmp_path / "ben.toml") as ben,
    ):
        assert hears(publisher, anna)
        assert hears(publisher, ben)
        (keys / "clients" / "ben.public").unlink()
        publisher.poll(time.monotonic() + REREAD_INTERVAL_S, 0.0)
        publisher.publish(messages)
        received = []

        def all_there() -> bool:
            received.extend(event for event in anna.receive(0) if event.call == "b")
            return len(received) >= len(messages)

        assert turn_until(publisher, all_there)
        with pytest.raises(FeedError, match="refuses this key"):
            hears(publisher, ben)


def test_a_feed_that_cannot_be_bound_again_is_an_error_and_no_silent_daemon(
    keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    endpoint = f"ipc://{folder}/feed"
    publisher = Publisher(FeedSettings(endpoint=endpoint, keys=str(keys), heartbeat_s=0.05))
    with subscribe(endpoint, keys=tmp_path / "ben.toml") as ben:
        assert turn_until(publisher, lambda: not ben.receive(0) and ben.links[0].inbox.heard_at is not None)
    (keys / "clients" / "ben.public").unlink()
    shutil.rmtree(folder)
    with pytest.raises(FeedError, match=f"{endpoint} cannot be bound"):
        publisher.poll(time.monotonic() + REREAD_INTERVAL_S, 0.0)
    publisher.close()


def test_a_new_client_is_allowed_without_a_restart(
    publisher: Publisher, endpoint: str, tmp_path: Path, keys: Path
) -> None:
    new_client(keys, "carl", tmp_path / "carl.toml")
    publisher.poll(time.monotonic() + REREAD_INTERVAL_S, 0.0)
    with subscribe(endpoint, keys=tmp_path / "carl.toml") as subscription:
        assert hears(publisher, subscription)


def test_a_key_that_is_written_over_revokes_the_old_one_and_one_that_may_be_read_now_is_allowed(
    publisher: Publisher, endpoint: str, tmp_path: Path, keys: Path
) -> None:
    new_client(tmp_path / "other", "anna", tmp_path / "new.toml")
    entry = keys / "clients" / "anna.public"
    with subscribe(endpoint, keys=tmp_path / "anna.toml") as anna:
        assert hears(publisher, anna)
        shutil.copyfile(tmp_path / "other" / "clients" / "anna.public", entry)
        publisher.poll(time.monotonic() + REREAD_INTERVAL_S, 0.0)
        with pytest.raises(FeedError, match="refuses this key"):
            hears(publisher, anna)
    server = ServerKeys.load(keys)
    before = server.stamp()
    assert server.stamp() == before
    entry.chmod(0o640)
    assert server.stamp() != before


def test_an_allow_list_that_may_not_be_read_is_told(
    keys: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ServerKeys.load(keys)

    def closed(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "listdir", closed)
    assert server.clients() == {}
    assert f"Permission denied: '{keys / 'clients'}'" in caplog.text
    with pytest.raises(FeedError, match="clients: cannot list the clients' keys: Permission denied; let the"):
        ServerKeys.load(keys)


def test_nobody_is_revoked_because_the_allow_list_cannot_be_read_for_a_moment(
    keys: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zmq.Context() as context:
        gatekeeper = Gatekeeper(context, ServerKeys.load(keys))

        def full(folder: Path) -> list[str]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(folder))

        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", full)
            assert not gatekeeper.poll(10.0, 0)
        assert "it stays as it was: [Errno 24] Too many open files" in caplog.text
        next((keys / "clients").iterdir()).unlink()
        gatekeeper._admitted = set(gatekeeper._allowed)
        assert gatekeeper.poll(20.0, 0), "revoked when it can be read again"
        gatekeeper.close()


def test_the_daemon_may_read_the_allow_list_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        new_client(tmp_path / "keys", "anna", tmp_path / "anna.toml")
    finally:
        os.umask(mask)
    for name, mode in {
        "": 0o755,
        "clients": 0o755,
        "clients/anna.public": 0o644,
        "server.toml": 0o600,
    }.items():
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == mode, name


def test_a_new_client_is_never_seen_half_written(
    keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever step is the last before the daemon looks: it looks again only when something changes."""
    server = ServerKeys.load(keys)
    seen: list[int] = []

    def look(*_step: object) -> Any:
        seen.append(len(server.clients()))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        new_client(keys, "carl", tmp_path / "carl.toml")
    finally:
        sys.settrace(before)
    assert set(seen) == {2, 3}
    assert not caplog.messages
    assert {path.name for path in keys.iterdir()} == {"server.toml", "clients"}, "nothing is left over"


def test_secrets_are_readable_by_their_owner_only(keys: Path, tmp_path: Path) -> None:
    for path in (keys / "server.toml", tmp_path / "anna.toml"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert (
        ClientKeys.load(tmp_path / "anna.toml").secret not in (keys / "clients" / "anna.public").read_text()
    )


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "x" * 65])
def test_a_client_name_must_be_a_plain_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeedError, match="client name"):
        new_client(tmp_path, name, tmp_path / "key.toml")


def test_a_name_is_given_once(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="'anna' has a key already"):
        new_client(keys, "anna", tmp_path / "again.toml")


def test_a_client_file_is_never_overwritten(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="File exists"):
        new_client(keys, "carl", tmp_path / "anna.toml")
    assert not (keys / "clients" / "carl.public").exists()


@pytest.mark.parametrize("n_written", [0, 1, 2])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_written: int
) -> None:
    keys, to = tmp_path / "keys", tmp_path / "anna.toml"
    left = iter(range(n_written))

    def fsync(_descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(FeedError, match=rf"cannot write {tmp_path}/.*\w: No space left on device"):
            new_client(keys, "anna", to)
    assert not to.exists()
    assert not list(keys.glob("**/anna.*"))
    new_client(keys, "anna", to)
    assert ClientKeys.load(to).server == ServerKeys.load(keys).public


def test_the_daemons_pair_may_lie_outside_the_directory(keys: Path, endpoint: str, tmp_path: Path) -> None:
    pair = (keys / "server.toml").rename(tmp_path / "credential")
    settings = FeedSettings(endpoint=endpoint, keys=str(keys), heartbeat_s=0.05)
    with pytest.raises(FeedError, match=r"server\.toml: cannot read"):
        Publisher(settings)
    elsewhere = msgspec.structs.replace(settings, server_keys=str(pair))
    publisher = Publisher(elsewhere)
    publisher.publish(call("a")[:5])
    with subscribe(endpoint, keys=tmp_path / "anna.toml") as subscription:
        assert hears(publisher, subscription)
    publisher.close()


def test_broken_key_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"server\.toml: cannot read"):
        ServerKeys.load(tmp_path)
    (tmp_path / "k.toml").write_text('server = "short"')
    with pytest.raises(FeedError, match=r"k\.toml: no key file, it has no public and no secret; ask for one"):
        ClientKeys.load(tmp_path / "k.toml")
    for server in ("short", "#" * 40):
        (tmp_path / "k.toml").write_text(f'server = "{server}"\npublic = ""\nsecret = ""')
        with pytest.raises(FeedError, match=r"k\.toml: server is not a key of 40 characters"):
            ClientKeys.load(tmp_path / "k.toml")


@pytest.mark.parametrize("content", ["", "not a key", "x" * 35, " " * 40, "#" * 40, "ä" * 40])
def test_an_unreadable_entry_of_the_allow_list_is_logged_and_left_out(
    keys: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (keys / "clients" / "junk.public").write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert sorted(ServerKeys.load(keys).clients().values()) == ["anna", "ben"]
    assert "junk.public" in caplog.text
