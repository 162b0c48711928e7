"""A server of a stranger, for tests: over real sockets it drips, never ends, compresses, or says what it likes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\n"
Behaviour = Callable[[socket.socket, threading.Event], None]


def saying(answer: bytes) -> Behaviour:
    """Say that, and close the connection."""
    return lambda connection, _: connection.sendall(answer)


def dripping(head: bytes = OK, piece: bytes = b"x", every: float = 0.05) -> Behaviour:
    """Send `head`, and then `piece` again and again, a little at a time, for ever."""

    def drip(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(head)
        while not ended.wait(every):
            connection.sendall(piece)

    return drip


def endless(head: bytes, piece: bytes) -> Behaviour:
    """Send `head`, and then `piece` as fast as it is taken, for ever."""

    def pour(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(head)
        while not ended.is_set():
            connection.sendall(piece * (1 + 65536 // len(piece)))

    return pour


def silent(_: socket.socket, ended: threading.Event) -> None:
    """Take what comes, and say nothing."""
    ended.wait(60)


@contextmanager
def stranger(behaviour: Behaviour, *, reads: bool = True) -> Iterator[str]:
    """The URL of a server that does so with each connection, once a request's headers came (or at once: `reads`)."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(30)
            received = b""
            while reads and b"\r\n\r\n" not in received:
                if not (data := connection.recv(65536)):
                    return
                received += data
            behaviour(connection, ended)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                continue

    def accept() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True)
                threads.append(thread)
                thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
