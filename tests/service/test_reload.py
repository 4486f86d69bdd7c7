import re
from pathlib import Path

from serstream.config import FeedSettings, MetricsSettings, QualitySettings, Settings
from serstream.service.reload import FIXED, fixed_changes, without_fixed_changes


def test_only_what_cannot_change_is_named_and_kept() -> None:
    old = Settings(feed=FeedSettings(history=1))
    new = Settings(feed=FeedSettings(history=2), quality=QualitySettings(max_loss=0.5))
    assert dict(fixed_changes(old, new)) == {"feed.history": FIXED["feed"]}
    kept = without_fixed_changes(old, new)
    assert (kept.feed, kept.quality) == (old.feed, new.quality)


def test_nothing_changed_nothing_named() -> None:
    assert not list(fixed_changes(Settings(), Settings(metrics=MetricsSettings())))


def test_every_fixed_table_exists() -> None:
    assert set(FIXED) <= set(Settings.__struct_fields__)


def test_the_manual_says_of_every_table_when_a_change_takes_effect() -> None:
    manual = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()
    rows = manual.partition("| changed | takes effect |")[2].partition("\n\n")[0].splitlines()
    told = {name: row for row in rows for name in re.findall(r"`\[+(\w+)\]+`", row)}
    assert set(told) == set(Settings.__struct_fields__)
    assert {name for name, row in told.items() if "| restart:" in row} == set(FIXED)
