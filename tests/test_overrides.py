from pathlib import Path

import pytest

from serstream import config
from serstream.errors import ConfigError
from serstream.overrides import from_arguments, from_credentials, from_environment

TEXT = """
[[rtp]]
port = 5004
[feed]
heartbeat_s = 2.0
"""


def load(tmp_path: Path, *assignments: str, **environment: str) -> config.Settings:
    path = tmp_path / "serstream.toml"
    path.write_text(TEXT)
    return config.load(path, [*from_environment(environment), *from_arguments(assignments)])


def test_what_is_not_named_keeps_the_value_of_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "feed.history=7")
    assert (settings.feed.history, settings.feed.heartbeat_s) == (7, 2.0)


def test_values_are_toml_or_else_strings(tmp_path: Path) -> None:
    settings = load(
        tmp_path, "feed.endpoint=ipc:///run/feed", "model.require_gpu=true", 'rtp[0].role="agent"'
    )
    assert settings.feed.endpoint == "ipc:///run/feed"
    assert settings.model.require_gpu is True
    assert settings.rtp[0].role == "agent"


def test_an_index_behind_the_last_adds_a_table(tmp_path: Path) -> None:
    settings = load(tmp_path, "rtp[1].port=6000", "file[0].path=a.wav")
    assert [rtp.port for rtp in settings.rtp] == [5004, 6000]
    assert settings.file == (config.FileSettings(path="a.wav"),)


def test_the_environment_sets_and_an_argument_has_the_last_word(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "rtp[0].port=7000",
        SERSTREAM_RTP__0__PORT="6000",
        SERSTREAM_MODEL__THREADS="2",
        SERSTREAM_OTHER="of no concern",
    )
    assert settings.rtp[0].port == 7000
    assert settings.model.threads == 2


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("feed.endpiont=x", "unknown key 'feed.endpiont'; did you mean 'endpoint'?"),
        ("feed.history=many", "feed.history is 'many': wanted a whole number"),
        ("feed.history", "--set feed.history: wanted KEY=VALUE"),
        ("feed=1", "--set feed: wanted KEY=VALUE with a key like feed.endpoint"),
        ("rtp[3].port=1", "--set rtp[3].port: there are 1 of them, wanted an index up to that"),
        ("rtp.port=1", "'port' stands where an index is expected"),
        ("feed[0].port=1", "0 stands where a key is expected"),
        ("feed.heartbeat_s.x=1", "'x' stands where no more is expected"),
    ],
)
def test_an_error_names_the_override(tmp_path: Path, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, assignment)
    assert message in str(error.value)
    assert f"--set {assignment.partition('=')[0]}" in str(error.value)


def test_no_error_shows_a_value_that_may_be_a_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, 'rtp[0].srtp=["AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0"]', "feed.history=-1")
    assert "c2VjcmV0" not in str(error.value)


def test_an_error_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with SERSTREAM_FEED__HISTORY: feed\.history is -1"):
        load(tmp_path, SERSTREAM_FEED__HISTORY="-1")


def test_a_credential_sets_the_key_it_is_named_after(tmp_path: Path) -> None:
    (tmp_path / "rtp.0.srtp").write_text('["inline:key"]\n')
    (tmp_path / "unrelated").write_text("x")
    (override,) = from_credentials(tmp_path)
    assert (override.key, override.value) == (("rtp", 0, "srtp"), ["inline:key"])
