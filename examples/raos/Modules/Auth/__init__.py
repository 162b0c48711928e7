"""Auth: accounts, and the tokens that stand for them. Passwords and tokens are kept as hashes only."""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
import time

from kernel import Kernel
from kernel.database import Database, now
from kernel.web import HttpError, Request, Response, json_response
from Modules.Auth.passwords import hash_password, matches

VERSION = "2.6.1"
SESSION_SECONDS = 12 * 3600
COOKIE = "raos_session"
_NAME = re.compile(r"[a-z][a-z0-9_]{1,31}")


class Accounts:
    """Who may do what; other modules ask it for the account behind a request."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, name: str, password: str) -> None:
        """Make an account.

        Raises:
            HttpError: 400, the name cannot be one or the password is short; 409, it is taken.
        """
        if not _NAME.fullmatch(name):
            raise HttpError(400, "a name has 2 to 32 of a-z, 0-9 and _, the first a letter")
        if len(password) < 10:
            raise HttpError(400, "a password has at least 10 characters")
        salt = secrets.token_bytes(16)
        try:
            with self._database.session() as connection:
                row = (name, salt, hash_password(password, salt), now())
                connection.execute("INSERT INTO accounts VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise HttpError(409, "that name is taken") from None

    def login(self, name: str, password: str) -> str:
        """A new token for `name`.

        Raises:
            HttpError: 401, the name or the password is wrong.
        """
        with self._database.session() as connection:
            row = connection.execute("SELECT salt, password_hash FROM accounts WHERE name = ?", (name,)).fetchone()
            if not matches(password, row["salt"] if row else b"", row["password_hash"] if row else b""):
                raise HttpError(401, "unknown name or wrong password")
            token = secrets.token_urlsafe(24)
            expires = int(time.time()) + SESSION_SECONDS
            connection.execute("DELETE FROM sessions WHERE expires_at < ?", (int(time.time()),))
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_hashed(token), name, expires))
        return token

    def who(self, request: Request) -> str:
        """The account whose token came with `request`, as a bearer token or a cookie.

        Raises:
            HttpError: 401, none did.
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            cookies = dict(item.strip().partition("=")[::2] for item in request.headers.get("cookie", "").split(";"))
            token = cookies.get(COOKIE, "")
        with self._database.session() as connection:
            query = "SELECT name FROM sessions WHERE token_hash = ? AND expires_at > ?"
            row = connection.execute(query, (_hashed(token), int(time.time()))).fetchone()
        if row is None:
            raise HttpError(401, "log in first")
        return str(row["name"])


def setup(kernel: Kernel) -> None:
    """Add Auth's routes and offer `accounts`."""
    accounts = Accounts(kernel.database)

    def register(request: Request) -> Response:
        name = request.text("name", 32)
        accounts.register(name, request.text("password", 200))
        return json_response({"name": name}, status=201)

    def login(request: Request) -> Response:
        token = accounts.login(request.text("name", 32), request.text("password", 200))
        cookie = f"{COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age={SESSION_SECONDS}"
        return json_response({"token": token}, headers={"Set-Cookie": cookie})

    def me(request: Request) -> Response:
        return json_response({"name": accounts.who(request)})

    kernel.provide("accounts", accounts)
    kernel.router.add("POST", "/api/auth/register", register)
    kernel.router.add("POST", "/api/auth/login", login)
    kernel.router.add("GET", "/api/auth/me", me)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8")).hexdigest()
