"""The node as an ASGI application: its routes, and what starts and stops with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from ashat import __version__
from ashat.node import maintenance
from ashat.node.api import logs, node, probes
from ashat.node.api.auth import require
from ashat.node.api.bundles import transfer_router
from ashat.node.api.declared import declare
from ashat.node.api.middleware import RequestLogMiddleware
from ashat.node.context import NodeContext
from ashat.node.core.errors import install_error_handlers
from ashat.protocol.messages import Role


def create_app(context: NodeContext) -> FastAPI:
    """Make the application that serves the node `context`. Its lifespan starts the services, and ends the program.

    It leaves the program running where `context.leaves_program` was set.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for service in context.services:
            await run_in_threadpool(service.start)
        try:
            yield
        finally:
            for service in reversed(context.services):
                await run_in_threadpool(service.stop)
            if not context.leaves_program:
                await run_in_threadpool(context.program.close)

    app = FastAPI(
        title="ASHAT Deploy node",
        version=__version__,
        description="Every call of `docs/node-api.md`, which says what each is for.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    install_error_handlers(app)
    app.include_router(node.router)
    app.include_router(transfer_router(context.store, context.room, require))
    app.include_router(logs.router)
    app.include_router(logs.program)
    app.include_router(probes.probes_router(context))
    context.services.extend(maintenance.services(context))
    _install_role(app, context)
    declare(app)
    return app


def create_server(context: NodeContext) -> ASGIApp:
    """Make what serves the node `context`: its application, and around that what is done for every request."""
    app = create_app(context)
    return RequestLogMiddleware(context.around(app), context=context)


def _install_role(app: FastAPI, context: NodeContext) -> None:
    if context.config.role is Role.OMEGA:
        from ashat.node import omega

        omega.install(app, context)
    elif context.config.role is Role.MAINFRAME:
        from ashat.node.mainframe import agent

        agent.install(app, context)
