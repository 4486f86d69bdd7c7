"""Who is connected to a bound ZeroMQ socket, by its monitor (zmq_socket_monitor(3))."""

from __future__ import annotations

from itertools import count

import zmq
from zmq.utils.monitor import parse_monitor_message

_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
"""A client that sees first that it cannot agree hangs up, and this side then knows no details."""
_UNBOUND = zmq.EVENT_CLOSED | zmq.EVENT_CLOSE_FAILED
UNBIND_LIMIT_MS = 1000
"""ZeroMQ's own thread needs well below a millisecond."""
_numbers = count()


class Connections:
    """Counts the connections of a socket; make it before the socket binds, close it before the socket."""

    def __init__(self, socket: zmq.Socket[bytes]):
        self._socket = socket
        # pyzmq would name it by the socket's descriptor, which the next may have before this name is free.
        self._monitor = socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FAILURES | _UNBOUND,
            addr=f"inproc://connections-{next(_numbers)}",
        )
        self._descriptors: set[int] = set()

    def __len__(self) -> int:
        return len(self._descriptors)

    def poll(self) -> int:
        """Take note of what has happened; how many handshakes have failed since the last call."""
        failed = 0
        while self._monitor.poll(0):
            told = parse_monitor_message(self._monitor.recv_multipart())
            if told["event"] == zmq.EVENT_ACCEPTED:
                self._descriptors.add(told["value"])
            elif told["event"] == zmq.EVENT_DISCONNECTED:
                self._descriptors.discard(told["value"])
            elif told["event"] & _FAILURES:
                failed += 1
        return failed

    def unbind(self) -> None:
        """Give up the endpoint, so that it can be bound again at once.

        Closing a socket only asks ZeroMQ's own thread to do so: its endpoint stays in use for a moment.
        """
        self._socket.unbind(self._socket.get_string(zmq.LAST_ENDPOINT))
        while self._monitor.poll(UNBIND_LIMIT_MS):
            if parse_monitor_message(self._monitor.recv_multipart())["event"] & _UNBOUND:
                return

    def close(self) -> None:
        """Look no longer."""
        self._monitor.close(linger=0)
