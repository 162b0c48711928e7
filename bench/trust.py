"""What trust costs: a Mainframe's question whether there is anything new, and all that signing adds to a deployment.

    python bench/trust.py [--rounds 200] [--events 10000] [--json]

The question is the processor time of the Mainframe, the median of many; OMEGA's repository is served on loopback by
other threads, whose time is not counted. The deployment is the wall time, the median of a tenth as many, of everything
that is done for trust alone: two statements of provenance, what is to be signed and the way back, two approvers'
signatures over both, judging them at the gate, on OMEGA (its answer to the promotion, and publishing), and on a
Mainframe that fetches what is new. Its log's part is in it, over a ledger that had so many events before the first of
these deployments: signed for when it is asked and at each answer, held against the ledger by each approver, sent to
OMEGA, and proved to the Mainframe.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ashat.audit.sign import sign_on  # noqa: E402
from ashat.cli.commands.inspect import check_log  # noqa: E402
from ashat.client.http import Transport  # noqa: E402
from ashat.common.canonical_json import canonical_json  # noqa: E402
from ashat.ledger.leaf import leaf_of  # noqa: E402
from ashat.ledger.ledger import Ledger  # noqa: E402
from ashat.ledger.tables import events as events_table  # noqa: E402
from ashat.ledger.tables import log as log_table  # noqa: E402
from ashat.node.core.db import Database  # noqa: E402
from ashat.node.omega.ledger_log import KeptLog  # noqa: E402
from ashat.node.omega.trust import OmegaTrust  # noqa: E402
from ashat.protocol.messages import SignedRelease  # noqa: E402
from ashat.transparency.merkle import CompactRange, leaf_hash  # noqa: E402
from ashat.trust.release.known_log import open_log  # noqa: E402
from ashat.trust.release.proposal import spell  # noqa: E402
from ashat.trust.tuf.release_document import LogEntry, ReleaseDocument  # noqa: E402
from ashat.trust.update_client.client import ReleaseClient  # noqa: E402
from ashat.trust.update_client.fetcher import RemoteRepository  # noqa: E402
from tests.support.builders.ledgers import CREATED, connected, fill  # noqa: E402
from tests.support.builders.signers import People  # noqa: E402
from tests.support.builders.tampered_log import SignedLedger  # noqa: E402
from tests.support.builders.trust_world import Server, World, document, mainframe, reply, serving  # noqa: E402
from tests.support.processes.omega import decide, promotion  # noqa: E402

QUESTION_LIMIT_MS = 15.0
DEPLOYMENT_LIMIT_MS = 500.0


def main() -> int:
    """Print the figures, or one JSON object; 1 where one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    question = statistics.median(ask(options.rounds))
    deployment = statistics.median(deploy(max(options.rounds // 10, 3), options.events))
    figures = {
        "anything_new_cpu_ms": (question, QUESTION_LIMIT_MS),
        "deployment_ms": (deployment, DEPLOYMENT_LIMIT_MS),
    }
    result = {
        name: {"median": round(value, 2), "limit": limit, "reached": value <= limit}
        for name, (value, limit) in figures.items()
    }
    if options.json:
        print(json.dumps({"rounds": options.rounds, "events": options.events, **result}, indent=2))
    else:
        for name, (value, limit) in figures.items():
            reached = "reached" if value <= limit else "MISSED"
            print(f"{name.removesuffix('_ms').replace('_', ' '):18}{value:7.1f} ms, at most {limit:.0f} ms: {reached}")
    return 0 if all(value <= limit for value, limit in figures.values()) else 1


def ask(rounds: int) -> list[float]:
    """Measure this thread's processor milliseconds for each question, once the first release is known."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        world = World(Path(directory) / "repository")
        world.publish(document(1))
        with serving(world.directory) as server, mainframe(server, world, Path(directory) / "cache") as client:
            client.latest_release("stable")
            taken = []
            for _ in range(rounds):
                before = time.thread_time()
                client.latest_release("stable")
                taken.append((time.thread_time() - before) * 1000)
    return taken


def _grow(url: str, size: int) -> None:
    """Fill a new ledger with `size` events of three updates, past `Ledger`, which would take hours."""
    story, tree, rows = [CREATED, *fill(size)], CompactRange(), []
    for number in range(size):
        event, update_id = story[number // 3], f"OLD-{number % 3}"
        body = canonical_json(event.model_dump(mode="json")).decode()
        tree.append(leaf_hash(leaf_of(update_id, 1, number // 3 + 1, body)))
        rows.append((update_id, 1, number // 3 + 1, event.kind, "", body, number, tree.root().hex()))
    Ledger.open(url).close()
    with connected(url) as connection:
        names = ("update_id", "attempt", "version", "kind", "at", "body", "seq", "root")
        connection.execute(events_table.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        frontier = " ".join(node.hex() for node in tree.nodes)
        connection.execute(log_table.update().values(size=size, frontier=frontier))


class Office:
    """A control plane's ledger, the approvers beside it, an OMEGA, and a Mainframe that asks `server`."""

    def __init__(self, directory: Path, events: int) -> None:
        self.people = People(machines=True)
        self.omega = OmegaTrust(directory / "omega")
        self.log = SignedLedger(directory / "ledger")
        _grow(self.log.url, events)
        os.environ |= {"ASHAT_HOME": str(directory / "approver"), "ASHAT_LEDGER_URL": self.log.url}
        self._kept = Database(directory / "node.db")
        self.kept = KeptLog(self._kept)

    def sign_log(self) -> LogEntry:
        """Sign the log as it is, as the control plane does."""
        with Ledger.open(self.log.url) as ledger:
            note, vkey, _ = sign_on(ledger, self.log.directory)
        return LogEntry(checkpoint=note, key=vkey)

    def send_log(self, signed: SignedRelease) -> tuple[int, int]:
        """Have OMEGA keep it; how many events it kept before, and how many then."""
        named = ReleaseDocument.from_bytes(signed.document.encode())
        assert named.log is not None
        before, size = self.kept.state().size, open_log(named.log).size
        with Ledger.open(self.log.url) as ledger:
            leaves = [leaf_hash(event.leaf) for event in ledger.records(first=before, limit=size - before)]
        self.kept.extend(named, before, leaves)
        with self._kept.transaction() as connection:
            self.kept.check(connection, named)
        return before, size

    def prove_log(self, server: Server, earlier: int, size: int) -> None:
        """Have `server` answer with OMEGA's proof, which is made when it is asked for."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            proof = [node.hex() for node in self.kept.proof(earlier, size)]
            reply(handler, 200, json.dumps({"proof": proof}).encode())

        server.answers[f"/log/consistency?from={earlier}&to={size}"] = answer


def deploy(rounds: int, events: int) -> list[float]:
    """Measure the milliseconds that trust takes of each of a number of deployments, one after the other."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as name:
        directory = Path(name)
        office = Office(directory, events)
        begun = office.people.begin_with(office.omega.state())
        office.omega.install(begun)
        assert begun.root is not None
        with serving(directory / "omega" / "repository") as server, Transport(server.url, name="OMEGA") as transport:
            root = begun.root.encode()
            client = ReleaseClient(RemoteRepository(transport), directory / "cache", root=root, target="omega")
            taken = []
            for number in range(1, rounds + 1):
                office.log.grow()
                began = time.perf_counter()
                _deploy(office, server, client, number)
                taken.append((time.perf_counter() - began) * 1000)
    return taken


def _deploy(office: Office, server: Server, client: ReleaseClient, number: int) -> None:
    people, omega = office.people, office.omega
    before = f"{number - 1:064x}" if number > 1 else None
    # A way back takes the number after its release's.
    decision = decide(f"{number:064x}", expected=before, seq=2 * number, update=f"UPD-{number}")
    entry = office.sign_log()
    proposal = people.propose(omega.state(), decision, log=entry)
    signatures = []
    for key in people.keys[:2]:
        check_log(entry)
        signatures.append(proposal.read(spell(proposal.sign(key))))
        office.sign_log()  # what would be proposed now is compared with what was
    signed = proposal.signed_release(signatures)
    if omega.judge(promotion(decision, signed=signed)) is None:
        raise SystemExit("OMEGA demanded no signature, so nothing was measured.")
    office.prove_log(server, *office.send_log(signed))
    omega.publish(signed)
    if client.latest_release("stable").update_id != decision.update_id:
        raise SystemExit("The Mainframe saw another release than was published.")


if __name__ == "__main__":
    raise SystemExit(main())
