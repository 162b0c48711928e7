"""Content: the pages a visitor sees. They are read once, as the module loads."""

from __future__ import annotations

from pathlib import Path

from kernel import Kernel
from kernel.web import HttpError, Request, Response, json_response

VERSION = "1.3.2"
HTML = {"Content-Type": "text/html; charset=utf-8"}


def setup(kernel: Kernel) -> None:
    """Read the pages and add Content's routes."""
    folder = Path(__file__).parent / "pages"
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}
    layout = pages.pop("_layout")

    def page(request: Request) -> Response:
        name = request.parts.get("page", "welcome")
        if name not in pages:
            raise HttpError(404, "there is no such page")
        html = layout.replace("{body}", pages[name]).replace("{version}", kernel.version)
        return Response(html.encode("utf-8"), 200, HTML)

    def listing(request: Request) -> Response:
        return json_response({"pages": list(pages)})

    kernel.router.add("GET", "/", page)
    kernel.router.add("GET", "/pages/{page}", page)
    kernel.router.add("GET", "/api/content/pages", listing)
