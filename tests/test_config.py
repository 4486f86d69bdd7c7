import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serstream import config
from serstream.errors import ConfigError
from serstream.overrides import from_arguments

SHIPPED = Path(__file__).parent.parent / "config" / "serstream.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[feed]\nendpiont = 'x'", "unknown key 'feed.endpiont'; did you mean 'endpoint'?"),
        ("[modle]", "unknown key 'modle'; did you mean 'model'?"),
        ("[[rtp]]\n[[rtp]]\nprot = 1", "unknown key 'rtp[1].prot'; did you mean 'port'?"),
        ("[[rtp]]\n[[rtp]]\nport = 0", "rtp[1].port is 0: wanted a whole number >= 1"),
        ("[segmenter]\nhop_ms = 110", "hop_ms is 110, wanted a multiple of 20"),
        ("[segmenter]\nhop_ms = 3000", "hop_ms is 3000, must be at most window_ms (2000)"),
        ("[rtp]\nport = 5004", "[rtp]: wanted a list of tables: write [[rtp]] for each"),
        ("[[rtp]]\nrole = 'boss'", "rtp[0].role is 'boss': wanted one of agent, customer, unknown"),
        (
            "[[alert]]\nname='a'\nemotions=['sad']\nclear_below=0.7",
            "clear_below is 0.7, must be at most threshold (0.6)",
        ),
        (
            "[[alert]]\nname='a'\nemotions=['sad']\n[[alert]]\nname='a'\nemotions=['sad']\nseverity='critical'",
            "[[alert]] name is 'a' 2 times, wanted another for each rule",
        ),
        (
            '[[alert]]\nname="a\\u001b[2J"\nemotions=["sad"]',
            r"[alert[0]]: name is 'a\x1b[2J', wanted printable characters only",
        ),
        ('[[rtp]]\ncall="a\\n"', r"rtp[0].call is 'a\n': wanted a string matching regex"),
        ("[[file]]", "[file[0]]: the key 'path' is missing"),
        ("[[microphone]]\nreconnect_s = 5.1", "microphone[0].reconnect_s is 5.1: wanted a number <= 5"),
        ("[feed]\nhistory = 'many'", "feed.history is 'many': wanted a whole number"),
        ("[[rtp]]\nroles = ['agent']", "rtp[0].roles is ['agent']: wanted a table"),
        ("[[rtp]]\nroles = { '10.0.0.0/8' = 'boss' }", "'boss'}: wanted one of agent, customer, unknown"),
        ("[[microphone]]\ndevice = [1]", "microphone[0].device is [1]: wanted a whole number or a string"),
        ("[[alert]]\nname='a'\nemotions='sad'", "alert[0].emotions is 'sad': wanted a list"),
        ("[[alert]]\nname='a'\nemotions=['sad']\nrole='boss'", "wanted one of agent, customer, unknown, any"),
        ("[[feed]]", "[[feed]]: wanted one table: write [feed] once"),
        ("feed = ", "not TOML"),
    ],
)
def test_error_names_key_seen_and_wanted(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "serstream.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read it: No such file.*; give the path of"):
        config.load(tmp_path / "none.toml")


def test_the_shipped_file_is_valid() -> None:
    assert config.load(SHIPPED).rtp == (config.RtpSettings(),)


def commented_keys(text: str) -> dict[str, dict[str, Any]]:
    """Table name to the keys that stand in it, whether commented out or not, with their values."""
    tables: dict[str, dict[str, Any]] = {}
    name = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"#?\[+([a-z_.]+)\]+", line):
            name = heading[1]
            tables[name] = {}
        elif re.match(r"#?[a-z][a-z_0-9]* = ", line):
            tables[name] |= tomllib.loads(line.removeprefix("#"))
    return tables


EXAMPLES = {"path", "device", "name", "emotions"}
"""Keys of sources and alerts without a default that can be written in TOML: the file shows an example."""


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    shown = commented_keys(SHIPPED.read_text())
    for table in msgspec.structs.fields(config.Settings):
        kind = table.type if isinstance(table.type, type) else table.type.__args__[0]
        assert set(shown[table.name]) == set(kind.__struct_fields__), table.name
        for field in msgspec.structs.fields(kind):
            if table.name in ("microphone", "file", "alert") and field.name in EXAMPLES:
                continue
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            value = shown[table.name][field.name]
            assert (tuple(value) if isinstance(value, list) else value) == default, (
                f"{table.name}.{field.name}"
            )


CRYPTO = "AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"rtp": [{"jitter_min_ms": 500, "srtp": [CRYPTO]}]}, "jitter_min_ms is 500"),
        ({"rtp": {"srtp": [CRYPTO]}}, r"write \[\[rtp\]\] for each"),
        ({"rtp": [{"srtp": CRYPTO}]}, r"rtp\[0\]\.srtp: wanted a list"),
        ({"rtp": [{"sdp": [f"a=crypto:1 {CRYPTO}"]}]}, r"rtp\[0\]\.sdp: wanted a string"),
    ],
)
def test_no_error_shows_a_secret(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        config.parse(tables, "here")
    assert "c2VjcmV0" not in str(error.value)


def test_who_asks_a_daemon_leaves_the_other_tables_to_it(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('[control]\nsocket = "x"\n[feed]\nendpiont = 1\n')
    assert config.load(path, only=["control"]).control.socket == "x"
    path.write_text('[contrl]\nsocket = "x"\n')
    with pytest.raises(ConfigError, match="unknown key 'contrl'; did you mean 'control'"):
        config.load(path, only=["control"])
    with pytest.raises(ConfigError, match="unknown key 'modle'; did you mean 'model'"):
        config.load(None, from_arguments(["modle.repository=/x"]), only=["control", "model"])
