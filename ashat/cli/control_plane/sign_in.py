"""Sign a person's browser in to Prefect's pages.

Prefect's own form appears on some of its pages only: the address of a run ends on an empty one.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import sys
import webbrowser
from pathlib import Path

from ashat.cli.control_plane.state import ControlState, read_password
from ashat.common.files import replace_file

PATH = "/sign-in"
_FILE = "sign-in.html"
# Under this name Prefect's pages keep, and show the server, what was typed as password.
_ASK = """<!doctype html><meta charset="utf-8"><title>ASHAT Deploy</title>
<style>body {{ font: 16px system-ui; max-width: 30em; margin: 4em auto }} code {{ white-space: nowrap }}</style>
<h1>ASHAT Deploy</h1><p>{why}</p>
<form method="post" action="/sign-in"><input type="hidden" name="to" value="{to}">
<input type="password" name="password" aria-label="Password" autofocus required> <button>Sign in</button></form>
<p><code>deploy ui</code> opens this page signed in; <code>deploy ui --password</code> prints the password.</p>"""
_SIGNED_IN = """<!doctype html><meta charset="utf-8"><title>Signed in</title>
<script>localStorage.setItem("prefect-password", {password}); location.replace({to});</script>
<noscript>Prefect's pages need JavaScript.</noscript>"""


def open_browser(page: Path) -> bool:
    """Open a page in the browser of whoever sits here; False where there is no screen, or no browser."""
    return can_open() and webbrowser.open(page.as_uri())


def can_open() -> bool:
    """Tell whether somebody may sit here before a browser."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def write_sign_in(home: Path, state: ControlState, to: str = "/") -> Path:
    """Write the page that signs the owner's browser in, which nobody else may read; return where it is."""
    page = home.resolve() / _FILE
    replace_file(page, form(state.ui_url, read_password(home), to).encode(), mode=0o600, durable=False)
    return page


def form(url: str, password: str, to: str) -> str:
    """Write a page, for a file that only its owner may read, which signs in at `url` and goes on to the path `to`.

    So the password is in no address, hence in no history and no list of processes.
    """
    fields = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}">'
        for name, value in (("password", password), ("to", to))
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>ASHAT Deploy</title><form method="post" '
        f'action="{html.escape(url + PATH)}">{fields}<button>Sign in</button></form>'
        "<script>document.forms[0].submit()</script>"
    )


def ask(to: str, why: str = "The control plane's pages ask for its password, once.") -> str:
    """Write the page that asks for the password, and goes on to the path `to`."""
    return _ASK.format(why=html.escape(why), to=html.escape(to))


def mark(password: str) -> str:
    """Derive what a cookie may hold to show that this browser has been given the password; it opens nothing."""
    return hashlib.sha256(password.encode()).hexdigest()


def signed_in(password: str, to: str) -> str:
    """Write the page that lets this browser show `password` from now on, and goes on to the path `to`."""
    kept = base64.b64encode(password.encode()).decode()
    path = "/" + to.lstrip("/\\")  # "//host" would be another server
    return _SIGNED_IN.format(password=_script(kept), to=_script(path))


def _script(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")
