"""Chat: rooms where accounts talk."""

from __future__ import annotations

from kernel import Kernel
from kernel.database import now
from kernel.web import HttpError, Request, Response, json_response

VERSION = "3.0.4"
ROOMS = ("lobby", "trade")
PAGE = 50


def setup(kernel: Kernel) -> None:
    """Add Chat's routes."""

    def rooms(request: Request) -> Response:
        return json_response({"rooms": list(ROOMS)})

    def read(request: Request) -> Response:
        room = _room(request)
        query = "SELECT id, author, text, sent_at FROM messages WHERE room = ? AND id > ? ORDER BY id LIMIT ?"
        with kernel.database.session() as connection:
            rows = connection.execute(query, (room, _after(request), PAGE)).fetchall()
        return json_response({"room": room, "messages": [dict(row) for row in rows]})

    def say(request: Request) -> Response:
        room, author = _room(request), kernel.service("accounts").who(request)
        row = (room, author, request.text("text", 2000), now())
        with kernel.database.session() as connection:
            query = "INSERT INTO messages (room, author, text, sent_at) VALUES (?, ?, ?, ?)"
            number = connection.execute(query, row).lastrowid
        return json_response({"id": number}, status=201)

    kernel.router.add("GET", "/api/chat/rooms", rooms)
    kernel.router.add("GET", "/api/chat/rooms/{room}/messages", read)
    kernel.router.add("POST", "/api/chat/rooms/{room}/messages", say)


def _room(request: Request) -> str:
    if request.parts["room"] not in ROOMS:
        raise HttpError(404, "there is no such room")
    return request.parts["room"]


def _after(request: Request) -> int:
    text = request.query.get("after", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 18):
        raise HttpError(400, "after must be a message's id")
    return int(text)
