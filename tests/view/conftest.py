"""What the tests of the live view begin with."""

import pytest
from screens import console
from scripted_feed import Script

from serstream.view.live import LiveView


@pytest.fixture
def view() -> LiveView:
    """Three calls: one alarms, one goes well and its agent is not analysed, one is bad but quiet."""
    view = LiveView(console(), "tcp://127.0.0.1:5556")
    angry, sad = Script("call-angry", "c"), Script("call-sad", "c")
    happy, agent = Script("call-happy", "c"), Script("call-happy", "a", "agent")
    for script in (happy, agent, sad, angry):
        view.update(script.started(), 0.0)
    for end in range(2, 62, 2):
        view.update(happy.window(end, "happy" if end > 30 else "neutral"), float(end))
        view.update(agent.unscored(end), float(end))
        view.update(sad.window(end, "sad"), float(end))
        view.update(angry.window(end, "angry" if end > 20 else "neutral", 0.9), float(end))
    view.update(angry.utterance(20, 30, "angry"), 60.0)
    view.update(angry.alert(40.0, severity="critical"), 60.0)
    return view
