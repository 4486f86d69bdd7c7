"""The monitor of a bound socket, with real clients that stay connected."""

from __future__ import annotations

import zmq

from serstream.feed.connections import Connections


def test_an_endpoint_can_be_bound_again_at_once() -> None:
    with zmq.Context() as context:
        endpoint = "tcp://127.0.0.1:*"
        clients: list[zmq.Socket[bytes]] = []
        for _ in range(300):
            with context.socket(zmq.PUB) as server:
                server.linger = 0
                connections = Connections(server)
                server.bind(endpoint)
                endpoint = server.last_endpoint.decode()
                while len(clients) < 20:
                    client = context.socket(zmq.SUB)
                    client.reconnect_ivl = 1
                    client.connect(endpoint)
                    clients.append(client)
                connections.unbind()
                connections.close()
        for client in clients:
            client.close(linger=0)
