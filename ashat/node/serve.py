"""Serving a node: its socket, its TLS, its log, and a clean end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import sys
import time
from functools import partial
from types import FrameType
from typing import Any, cast

import psutil
import uvicorn

from ashat import __version__
from ashat.client.environment import is_loopback
from ashat.client.http import trust_of
from ashat.common.files import replace_file
from ashat.common.shortage import reason
from ashat.common.text import printable
from ashat.errors import AshatError, UsageError
from ashat.node.app import create_server
from ashat.node.connections import LOOK_EVERY, Connections, Listening, NodeProtocol, raise_descriptor_limit
from ashat.node.context import NodeContext, open_node
from ashat.node.core.config import NodeConfig
from ashat.node.logs.line_throttle import LineThrottle
from ashat.protocol.messages import Role

log = logging.getLogger("ashat.node")

ADDRESS_FILE = "node.json"
_BACKLOG = 512
_KEEP_ALIVE = 30
_GRACE = 5
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def serve(config: NodeConfig) -> None:
    """Serve the node until SIGTERM or SIGINT, which end its program, too; or until SIGHUP, which leaves it running for
    the node's next start. The node's address is printed, and kept in `node.json` of its data.

    Raises:
        UsageError: a setting does not work here, such as a certificate or a directory.
        AshatError: the address is taken, or the record cannot be opened.
    """
    configure_logging()
    config.database.read_dsn()
    _check_tls(config)
    with open_node(config) as context:
        _check_tokens(context)
        app = create_server(context)
        connections = Connections(raise_descriptor_limit())
        with _listen(config, connections) as listening:
            _announce(context, listening)
            server = _Server(
                context,
                connections,
                uvicorn.Config(
                    app,
                    loop="asyncio",  # others do not accept by the socket's own method
                    http=cast(Any, partial(NodeProtocol, connections)),
                    ws="none",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    ssl_certfile=config.tls_cert,
                    ssl_keyfile=config.tls_key,
                    timeout_keep_alive=_KEEP_ALIVE,
                    timeout_graceful_shutdown=_GRACE,
                ),
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, server.handle_exit)  # until uvicorn does so; it raises it again once it has ended
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(signal.SIGHUP, server.hand_over)
            server.run(sockets=[listening])
    if not server.started:
        raise AshatError("The node could not start; the lines above say why.")


def configure_logging() -> None:
    """Log to standard error: UTC, one line each."""
    formatter = _Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(LineThrottle())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What no line of ours says need not be found out for each (https://docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in ("httpx", "httpcore", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Formatter(logging.Formatter):
    """Writes a record as a line in which everything is seen, whoever chose its words; a traceback keeps its lines."""

    _second: tuple[int, str] = (-1, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Write when it was made; a node under load writes a thousand lines a second."""
        if self._second[0] != int(record.created):
            self._second = int(record.created), super().formatTime(record, datefmt)
        return self._second[1]

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Write the line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Write the traceback."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class _Server(uvicorn.Server):
    """Tells whoever waits within the node as soon as it is to stop, so that no long answer holds it up."""

    def __init__(self, context: NodeContext, connections: Connections, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._context = context
        self._connections = connections

    async def main_loop(self) -> None:
        """Serve until the node is to stop, and look after the connections meanwhile."""
        looking = asyncio.create_task(self._look())
        try:
            await super().main_loop()
        finally:
            looking.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._connections.look()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._context.stopping.set()
        super().handle_exit(sig, frame)

    def hand_over(self, *_: object) -> None:
        """Stop, and leave the program to the next start."""
        self._context.leaves_program = True
        self._context.stopping.set()
        self.should_exit = True


def _listen(config: NodeConfig, connections: Connections) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = Listening(family, connections)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise AshatError(
            f"The node cannot serve on {config.host}:{config.port}: {error.strerror or error}; choose another --port."
        ) from None
    return listening


def _announce(context: NodeContext, listening: socket.socket) -> None:
    config = context.config
    port = listening.getsockname()[1]
    host = _ANY.get(config.host, config.host)
    url = f"{'https' if config.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    address = {
        "role": config.role,
        "name": config.name,
        "url": url,
        "host": config.host,
        "port": port,
        "pid": os.getpid(),
        "version": __version__,
        "runs_program_as": whom_it_runs_as(config),
    }
    try:
        content = json.dumps(address, indent=1).encode() + b"\n"
        context.reserve.spend(lambda: replace_file(config.data / ADDRESS_FILE, content, durable=False))
    except OSError as error:
        log.warning("%s is not written: %s", config.data / ADDRESS_FILE, reason(error, config.data))
    sys.stdout.write(f"ashat-node: {config.role} '{config.name}' serves on {url}, data in {config.data}\n")
    sys.stdout.flush()
    if not config.tls_cert and not is_loopback(host):
        log.warning("tokens cross the network readable: set tls_cert and tls_key, or serve behind a TLS proxy")
    if config.app.supervises or config.app.hook:
        is_root = os.geteuid() == 0 and not config.app.user
        log.log(logging.WARNING if is_root else logging.INFO, "%s", whom_it_runs_as(config))
    else:
        log.warning("neither [app] command nor [app] hook is set: the node switches files, and starts no program")


def whom_it_runs_as(config: NodeConfig) -> str:
    """Say as whom the program runs, and what that keeps from it; "" where the node starts none."""
    if not (config.app.supervises or config.app.hook):
        return ""
    what = "the hook" if config.app.hook else "the program"
    if config.app.user:
        return f"{what} runs as {config.app.user}, which keeps a release from the node's tokens, keys and record"
    return f"{what} runs as {psutil.Process().username()}, as the node does: a release can do whatever the node can"


def _check_tls(config: NodeConfig) -> None:
    if config.app.ca_file:
        trust_of(config.app.ca_file)
    if not config.tls_cert:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key, password="")
    except (OSError, ValueError) as error:
        what = f"{error.strerror or error}" if isinstance(error, OSError) else f"{error}"
        raise UsageError(
            f"tls_cert {config.tls_cert} and tls_key {config.tls_key} cannot be used: {what}. Both must be PEM, the "
            "key without a password."
        ) from None


def _check_tokens(context: NodeContext) -> None:
    if not context.tokens.all() and context.config.role is not Role.MAINFRAME:
        raise UsageError(
            f"There is no token in {context.tokens.path}, so nobody could ask this node anything; "
            f"run: ashat-node token add --token-file {context.tokens.path} --scope push"
        )
