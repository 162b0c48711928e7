"""Forum: boards, threads and posts."""

from __future__ import annotations

from kernel import Kernel
from kernel.database import now
from kernel.web import HttpError, Request, Response, json_response

VERSION = "2.1.3"
BOARDS = {
    "announcements": "News of the server",
    "help": "Questions, and answers to them",
    "guilds": "Guilds looking for members",
}
PAGE = 50


def setup(kernel: Kernel) -> None:
    """Add Forum's routes."""

    def boards(request: Request) -> Response:
        query = "SELECT board, count(*) AS threads FROM threads GROUP BY board"
        with kernel.database.session() as connection:
            counts = {row["board"]: row["threads"] for row in connection.execute(query)}
        listing = [{"name": name, "about": about, "threads": counts.get(name, 0)} for name, about in BOARDS.items()]
        return json_response({"boards": listing})

    def threads(request: Request) -> Response:
        query = "SELECT id, title, author, created_at FROM threads WHERE board = ? ORDER BY id DESC LIMIT ?"
        with kernel.database.session() as connection:
            rows = connection.execute(query, (_board(request), PAGE)).fetchall()
        return json_response({"threads": [dict(row) for row in rows]})

    def start(request: Request) -> Response:
        board, author = _board(request), kernel.service("accounts").who(request)
        title, text = request.text("title", 120), request.text("text", 10000)
        with kernel.database.session() as connection:
            query = "INSERT INTO threads (board, title, author, created_at) VALUES (?, ?, ?, ?)"
            thread = connection.execute(query, (board, title, author, now())).lastrowid
            query = "INSERT INTO posts (thread, author, text, created_at) VALUES (?, ?, ?, ?)"
            connection.execute(query, (thread, author, text, now()))
        return json_response({"thread": thread}, status=201)

    kernel.router.add("GET", "/api/forum/boards", boards)
    kernel.router.add("GET", "/api/forum/boards/{board}/threads", threads)
    kernel.router.add("POST", "/api/forum/boards/{board}/threads", start)


def _board(request: Request) -> str:
    if request.parts["board"] not in BOARDS:
        raise HttpError(404, "there is no such board")
    return request.parts["board"]
