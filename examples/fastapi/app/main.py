"""The API."""

import os
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.tables import Tool, engine

VERSION = "1.0.0"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
app = FastAPI(title="Tools", version=VERSION, docs_url=None, redoc_url=None)


@app.middleware("http")
async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Tell browsers how far to trust an answer."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


class NewTool(BaseModel):
    """A tool that somebody offers."""

    name: str = Field(min_length=1, max_length=80)
    owner: str = Field(min_length=1, max_length=80)


class ToolAnswer(NewTool):
    """A tool that is there."""

    model_config = ConfigDict(from_attributes=True)

    id: int


class Health(BaseModel):
    """Whether the API can serve, and which release it is."""

    status: str
    version: str
    bundle: str | None


@app.get("/health")
def health() -> Health:
    """Ask the database for nothing much."""
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok", version=VERSION, bundle=os.environ.get("ASHAT_BUNDLE"))


@app.get("/tools")
def list_tools(limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[ToolAnswer]:
    """List the tools, the newest first."""
    with Session(engine) as session:
        found = session.scalars(select(Tool).order_by(Tool.id.desc()).limit(limit))
        return [ToolAnswer.model_validate(tool) for tool in found]


@app.get("/tools/{number}", responses={404: {"description": "There is no such tool"}})
def show_tool(number: int) -> ToolAnswer:
    """Show a tool."""
    with Session(engine) as session:
        tool = session.get(Tool, number)
        if tool is None:
            raise HTTPException(404, "no such tool")
        return ToolAnswer.model_validate(tool)


@app.post("/tools", status_code=201)
def offer_tool(new: NewTool) -> ToolAnswer:
    """Offer a tool."""
    with Session(engine) as session:
        tool = Tool(name=new.name, owner=new.owner)
        session.add(tool)
        session.commit()
        return ToolAnswer.model_validate(tool)
