"""The feed of a daemon that runs in a thread of the test."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from scripted_feed import call

from serstream.config import FeedSettings
from serstream.feed.publisher import Publisher


@contextmanager
def daemon(endpoint: str, live: str = "live") -> Iterator[None]:
    """A daemon's main loop: one live call, one that is over, and heartbeats."""
    stop = threading.Event()
    ready = threading.Event()

    def turn() -> None:
        publisher = Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.05))
        publisher.publish([*call("over"), *call(live)[:-3]])
        ready.set()
        while not stop.wait(0.005):
            publisher.poll(time.monotonic(), time.time())
        publisher.close()

    thread = threading.Thread(target=turn)
    thread.start()
    ready.wait()
    yield
    stop.set()
    thread.join()
