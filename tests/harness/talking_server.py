"""Real servers below HTTP: they say what a test likes to each connection, or nothing, and see it closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Talk = Callable[[socket.socket], None]


@dataclass
class TalkingServer:
    """A server on 127.0.0.1; `opened` and `closed` count the connections that it took and that its clients closed."""

    port: int
    opened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def be_silent(connection: socket.socket) -> None:
    """Hear the request, and say nothing."""


def drip(start: bytes, piece: bytes) -> Talk:
    """Begin an answer, and go on with it by a small piece at a time, for ten seconds."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(start)
        for _ in range(500):
            connection.sendall(piece)
            time.sleep(0.02)

    return talk


@contextmanager
def talking_server(talk: Talk) -> Iterator[TalkingServer]:
    """Starts a server that talks so to each connection, and hears it until its client closes it, or its own end."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listening:
        server = TalkingServer(listening.getsockname()[1])
        connections: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connections.append(connection)
                    server.opened.release()
                    threading.Thread(target=attend, args=(connection,), daemon=True).start()

        def attend(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(20)
                try:
                    talk(connection)
                    while connection.recv(4096):
                        pass
                except TimeoutError:
                    return
                except OSError:  # it was closed while we talked
                    pass
                server.closed.release()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server
        finally:
            for each in (listening, *connections):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose connections are neither taken nor refused, as by a firewall that drops what comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            time.sleep(0.05)
            yield full.getsockname()[1]
        finally:
            for one in waiting:
                one.close()
