"""Market: what accounts may buy for RaCoin."""

from __future__ import annotations

import json
from pathlib import Path

from kernel import Kernel
from kernel.database import now
from kernel.web import HttpError, Request, Response, json_response

VERSION = "1.8.0"
CURRENCY = "RaCoin"


def setup(kernel: Kernel) -> None:
    """Stock the shelves that are new, and add Market's routes."""
    catalogue = json.loads((Path(__file__).parent / "catalogue.json").read_text(encoding="utf-8"))
    with kernel.database.session() as connection:
        connection.executemany("INSERT OR IGNORE INTO items VALUES (:id, :title, :price, :stock)", catalogue)

    def items(request: Request) -> Response:
        with kernel.database.session() as connection:
            rows = connection.execute("SELECT id, title, price, stock FROM items ORDER BY id").fetchall()
        return json_response({"currency": CURRENCY, "items": [dict(row) for row in rows]})

    def item(request: Request) -> Response:
        with kernel.database.session() as connection:
            query = "SELECT id, title, price, stock FROM items WHERE id = ?"
            row = connection.execute(query, (request.parts["item"],)).fetchone()
        if row is None:
            raise HttpError(404, "there is no such item")
        return json_response({**dict(row), "currency": CURRENCY})

    def order(request: Request) -> Response:
        buyer, wanted, amount = kernel.service("accounts").who(request), request.text("item", 64), _amount(request)
        with kernel.database.session() as connection:
            query = "UPDATE items SET stock = stock - ? WHERE id = ? AND stock >= ?"
            if connection.execute(query, (amount, wanted, amount)).rowcount != 1:
                raise HttpError(409, "there is no such item, or not so many of it")
            query = "INSERT INTO orders (item, buyer, amount, ordered_at) VALUES (?, ?, ?, ?)"
            number = connection.execute(query, (wanted, buyer, amount, now())).lastrowid
        return json_response({"order": number}, status=201)

    kernel.router.add("GET", "/api/market/items", items)
    kernel.router.add("GET", "/api/market/items/{item}", item)
    kernel.router.add("POST", "/api/market/orders", order)


def _amount(request: Request) -> int:
    value = request.json().get("amount", 1)
    if type(value) is not int or not 1 <= value <= 1000:
        raise HttpError(400, "amount must be a whole number from 1 to 1000")
    return value
