"""The service's socket."""

import socket

from layersweep.cli.processes import listen


def test_accepted_connections_are_known_as_tcp_so_that_answers_are_not_delayed() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
