import logging
from pathlib import Path

import pytest

from serstream.config import Settings, load, parse
from serstream.errors import SerstreamError
from serstream.rehearsal import free_port_pair
from serstream.service.check import check, tell_who_is_analysed
from serstream.service.intake import Intake
from serstream.service.notifier import Notifier
from serstream.service.shelf import SocketShelf
from serstream.service.sources import Sources
from serstream.shipped import SAMPLE_CALL, models_dir

SHIPPED = Path(__file__).parents[2] / "config" / "serstream.toml"


def settings_of(**tables: object) -> Settings:
    return parse({"model": {"repository": str(models_dir())}, **tables}, "test")


def test_what_runs_is_fine(tmp_path: Path) -> None:
    ports = [
        {"port": 5004},
        {"port": 5006, "rtcp_mux": True},
        {"port": 5007, "address": "::1"},
        {"port": 5004, "address": "::1", "name": "six"},
    ]
    assert check(settings_of(rtp=ports), tmp_path).metadata.labels
    for endpoint in (f"ipc://{tmp_path}/feed", "ipc://feed", "ipc:///run/not-yet/feed", "tcp://[::1]:9464"):
        check(settings_of(rtp=ports, feed={"endpoint": endpoint}), tmp_path)
    check(settings_of(rtp=ports, feed={"endpoint": "tcp://127.0.0.1:65534"}, metrics={"port": 0}), tmp_path)
    check(settings_of(file=[{"path": str(SAMPLE_CALL), "call": call} for call in ("one", "two")]), tmp_path)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({}, r"no source: .* at least one \[\[rtp\]\]"),
        ({"rtp": [{"address": "localhst"}]}, "address is 'localhst', wanted an IP address"),
        ({"rtp": [{"payload_types": {"96": "MP3/90000"}}]}, r"payload_types\.96 is 'MP3"),
        ({"rtp": [{"sdp": "missing.sdp"}]}, r"sdp '/.*/missing\.sdp': cannot read it: No such file"),
        ({"rtp": [{"srtp": ["ROT13 inline:AAAA"]}]}, "crypto suite 'ROT13', wanted one of"),
        ({"rtp": [{"port": 5004}, {"port": 5004}]}, "UDP port .*:5004 is wanted twice"),
        ({"rtp": [{"port": 5004}, {"port": 5005}]}, "5005 is wanted twice, for RTCP of .*:5004"),
        ({"rtp": [{}, {"address": "0.0.0.0", "name": "b"}]}, r"0\.0\.0\.0:5004 is wanted twice, for .*127"),
        ({"rtp": [{"address": "::", "name": "b"}, {}]}, r"127\.0\.0\.1:5004 is wanted twice, for .*:::5004"),
        (
            {"rtp": [{"address": "::1"}, {"address": "0:0:0:0:0:0:0:1", "name": "b"}]},
            "::1:5004 is wanted twice",
        ),
        (
            {"rtp": [{"port": 5004}, {"port": 5004, "address": "::1"}]},
            r"::1:5004: its first stream would be called rtp-5004-1, as that of 127\.0\.0\.1:5004; give",
        ),
        ({"rtp": [{"name": "desk"}, {"port": 5006, "name": "desk"}]}, "called desk-1"),
        ({"file": [{"path": "missing.wav"}]}, "missing.wav"),
        (
            {"file": [{"path": str(SAMPLE_CALL)}, {"path": str(SAMPLE_CALL), "realtime": False}]},
            r"\[\[file\]\] .*: its first stream would be called .*-1, as that of another .*give one .* call",
        ),
        ({"rtp": [{}], "feed": {"endpoint": "nonsense"}}, "feed endpoint 'nonsense': wanted tcp://"),
        ({"rtp": [{}], "feed": {"endpoint": "tcp://0.0.0.0:5555"}}, "can be reached from outside"),
        (
            {"rtp": [{}], "metrics": {"port": 5556}},
            r"metrics\.port is 5556, which the feed takes for its events, tcp://127\.0\.0\.1:5556; give one",
        ),
        (
            {"rtp": [{}], "feed": {"endpoint": "tcp://localhost:7000"}, "metrics": {"port": 7001}},
            r"7001, which the feed takes for its snapshots, tcp://localhost:7001",
        ),
        ({"rtp": [{}], "feed": {"endpoint": "ipc://none/feed"}}, "ipc://none/feed: there is no folder none"),
        ({"rtp": [{}], "feed": {"endpoint": "inproc://x"}}, "'inproc://x': wanted tcp://.* or ipc://PATH"),
        (
            {"rtp": [{}], "feed": {"endpoint": f"ipc:///tmp/{98 * 'x'}"}},
            r"feed\.endpoint: a socket at .*\.snapshot has 112 bytes in its path, wanted at most 107",
        ),
        (
            {"rtp": [{}], "control": {"socket": 108 * "x"}},
            r"control\.socket: a socket at .*x has \d+ bytes in its path, wanted at most 107",
        ),
        ({"rtp": [{}], "feed": {"keys": "missing"}}, "missing.*server.toml"),
        ({"rtp": [{}], "model": {"path": "missing"}}, "missing"),
    ],
)
def test_what_run_would_refuse_is_told(tmp_path: Path, tables: dict[str, object], told: str) -> None:
    with pytest.raises(SerstreamError, match=told):
        check(settings_of(**tables), tmp_path)


def test_an_sdp_is_sought_beside_the_configuration_by_check_and_by_run(tmp_path: Path) -> None:
    (tmp_path / "call.sdp").write_text("v=0\nm=audio 5004 RTP/AVP 96\na=rtpmap:96 opus/48000/2\n")
    port = free_port_pair()
    settings = settings_of(rtp=[{"sdp": "call.sdp", "port": port}])
    check(settings, tmp_path)
    sources = Sources(settings, tmp_path, Intake(1), SocketShelf(Notifier({}), {}))
    other = settings_of(rtp=[{"sdp": "call.sdp", "port": port, "role": "agent"}])
    assert not sources.reload(other)
    sources.start()
    sources.stop()


def test_emotions_that_the_model_never_says_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [
        {"name": "good", "emotions": ["angry", "negative"]},
        {"name": "typo", "emotions": ["angri", "sad"]},
    ]
    with caplog.at_level(logging.WARNING):
        check(settings_of(rtp=[{"role": "customer"}], alert=rules[:1]), tmp_path)
        assert not caplog.messages
        check(settings_of(rtp=[{"role": "customer"}], alert=rules), tmp_path)
    (told,) = caplog.messages
    assert "never says 'angri' of 'typo', only angry, disgust" in told


ROLES_NAMED: list[dict[str, list[dict[str, object]]]] = [
    {"rtp": [{"role": "customer"}]},
    {"rtp": [{"roles": {"10.1.0.0/16": "agent"}}]},
    {"rtp": [{"parties": ["customer", "agent"]}]},
    {"microphone": [{"role": "agent"}]},
    {"file": [{"path": "call.wav", "roles": ["customer"]}]},
]


@pytest.mark.parametrize("sources", ROLES_NAMED, ids=str)
def test_where_roles_are_named_nobody_is_warned(
    sources: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    tell_who_is_analysed(settings_of(**sources))
    assert not caplog.messages


def test_sources_where_agents_may_be_analysed_unawares_are_named(caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of(
        rtp=[{"port": 5004}, {"port": 5006, "role": "agent"}],
        microphone=[{}, {"device": "USB", "role": "customer"}],
        file=[{"path": "call.wav"}],
    )
    tell_who_is_analysed(settings)
    (told,) = caplog.messages
    assert "no role is named for rtp:127.0.0.1:5004, microphone:default, file:call.wav: everybody" in told
    assert 'agents as well if there are any; name it by role = "customer" or "agent"' in told


def test_analysing_agents_is_told_instead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(settings_of(rtp=[{}], privacy={"analyse_agents": True}), tmp_path)
    (told,) = caplog.messages
    assert "privacy.analyse_agents is set" in told


def test_the_configuration_that_ships_names_no_role_and_is_told_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check(load(SHIPPED), SHIPPED.parent)
    (told,) = caplog.messages
    assert "no role is named for rtp:127.0.0.1:5004: everybody" in told
