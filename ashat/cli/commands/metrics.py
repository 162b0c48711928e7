"""`deploy metrics`: what the record says, for Prometheus; printed once, or served. None needs Prefect."""

from __future__ import annotations

import ipaddress
import threading
from typing import Annotated

import typer

from ashat.cli.commands.status_history import as_of
from ashat.cli.terminal import output
from ashat.cli.terminal.interrupts import on_ending_signals
from ashat.common.home import home
from ashat.errors import UsageError
from ashat.ledger.opening import open_ledger
from ashat.ledger.summaries import troubles_in


def metrics(
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Serve them at /metrics until stopped, such as on 127.0.0.1:9464."),
    ] = "",
) -> None:
    """Print the record's figures as Prometheus text: deployments, durations, gates, checks; or serve them."""
    if not listen:
        output.write_exactly(page().decode())
        return
    from ashat.cli.terminal.serve_metrics import Exporter
    from ashat.stats.exposition import CONTENT_TYPE

    address = _address(listen)
    page()  # so that what is wrong with the ledger is said here, and not to Prometheus alone
    with Exporter(address, page, CONTENT_TYPE) as exporter:
        serving = threading.Thread(target=exporter.serve_forever, args=(0.1,), daemon=True)
        stop = threading.Event()
        with on_ending_signals(lambda _: stop.set()):
            serving.start()
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            output.say(f"📈 http://{host}:{exporter.server_port}/metrics")
            if not _is_loopback(address[0]):
                output.warn("Whoever reaches that address reads the figures; no token is asked.")
            output.flush()
            stop.wait()
        exporter.shutdown()


def page() -> bytes:
    """Read the ledger, and write its figures.

    Raises:
        LedgerError: it cannot be read.
    """
    from ashat.cli.control_plane.state import last_look
    from ashat.stats.deliveries import KINDS, Entry, deliveries
    from ashat.stats.exposition import Record, exposition

    at = output.now()
    with open_ledger() as ledger:
        found = deliveries(Entry(*row) for row in ledger.parsed(KINDS))
        summaries, troubles = ledger.summaries(), troubles_in(ledger)
    shown = [as_of(summary, at) for summary in summaries]
    return exposition(Record(found, shown, troubles, last_look(home())))


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdecimal() and int(port) < 2**16):
        raise UsageError(f"{text!r} is no address: give HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464.")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
