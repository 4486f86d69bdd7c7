"""Six, seven, then eight emotions in one call: from the sound to the live view."""

import io

import pytest
from rich.console import Console
from test_pipeline import events
from tiny_model import LABELS, write_model

from serstream.config import AlertSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.coding import decode, encode
from serstream.feed.messages import Message, ModelChanged, StreamEnded, UtteranceEmotion, WindowEmotion
from serstream.pipeline import Pipeline
from serstream.view.live import LiveView

SETS = {"six@1": LABELS, "seven@1": (*LABELS, "surprise"), "eight@1": ("calm", *LABELS, "surprise")}


def changed(model: EmotionModel, sequence: int) -> ModelChanged:
    return ModelChanged(
        source="serstream", call="-", stream="-", role="unknown", sequence=sequence, start=0.0, end=0.0,
        time="2026-01-01T00:00:00.000Z", model=model.reference, previous="", labels=model.metadata.labels,
    )  # fmt: skip


def header(view: LiveView) -> str:
    """The line over the rows; the initials of the labels are its column titles."""
    paper = Console(file=io.StringIO(), width=100, height=12, color_system=None, _environ={})
    paper.print(view.renderable(20.0), end="")
    assert isinstance(paper.file, io.StringIO)
    return paper.file.getvalue().splitlines()[1]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    """A call whose model is exchanged twice, each time in the middle of speech."""
    folder = tmp_path_factory.mktemp("models")
    models = [
        EmotionModel(write_model(folder / f"{name}.onnx", name=name.partition("@")[0], labels=labels))
        for name, labels in SETS.items()
    ]
    rule = AlertSettings(
        name="any", emotions=("negative", "positive", "surprise"), threshold=0.2, clear_below=0.1, for_s=0.0
    )
    pipeline = Pipeline(Settings(alert=(rule,)), models[0])
    source = events(chunk=320)
    third = len(source) // 3
    messages: list[Message] = []
    for i, model in enumerate(models):
        pipeline.model = model
        messages.append(changed(model, i))
        messages += pipeline.feed(source[i * third : (i + 1) * third if i < 2 else None])
    return [decode(encode(message)) for message in messages]


def test_every_window_has_the_labels_of_the_model_that_it_names(told: list[Message]) -> None:
    windows = [message for message in told if isinstance(message, WindowEmotion)]
    assert [w.model for w in windows] == sorted((w.model for w in windows), key=list(SETS).index)
    assert {w.model for w in windows} == set(SETS)
    for window in windows:
        labels = set(SETS[window.model])
        assert set(window.probabilities) == set(window.smoothed) == labels
        assert sum(window.smoothed.values()) == pytest.approx(1.0, abs=1e-3)
        assert {window.emotion, window.smoothed_emotion} <= labels


def test_an_utterance_is_told_in_the_labels_of_its_last_model(told: list[Message]) -> None:
    last: dict[int, WindowEmotion] = {}
    across = 0
    for message in told:
        if isinstance(message, WindowEmotion):
            before = last.get(message.utterance)
            across += before is not None and before.model != message.model
            last[message.utterance] = message
        elif isinstance(message, UtteranceEmotion):
            assert set(message.probabilities) == set(SETS[last[message.utterance].model])
    assert across, "no exchange fell into an utterance: the test tests nothing"
    ended = [message for message in told if isinstance(message, StreamEnded)]
    assert set(ended[0].emotions_s) <= set(SETS["eight@1"])


def test_the_live_view_has_a_column_for_every_label_that_there_is(told: list[Message]) -> None:
    view = LiveView(Console(file=io.StringIO(), force_terminal=True, width=100, height=12, _environ={}))
    seen = {}
    for message in told:
        view.update(message, message.end)
        if isinstance(message, WindowEmotion):
            seen[message.model] = header(view).split()[4]
    assert seen == {"six@1": "adfhns", "seven@1": "adfhnss", "eight@1": "acdfhnss"}
    view.press("down", 20.0)
    view.press("enter", 20.0)
    header(view)  # the call's page, whose trend and utterances are of all three models
