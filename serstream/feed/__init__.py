"""The emotion feed: message schema, publisher and the client that other programs import.

>>> from serstream.feed import subscribe
>>> for event in subscribe("tcp://127.0.0.1:5556", types=["alert"]):
...     print(event.call, event.rule, event.state)
"""

from serstream.feed.subscriber import Subscription, subscribe

__all__ = ["Subscription", "subscribe"]
