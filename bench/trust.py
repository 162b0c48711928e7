"""What trust costs: a Mainframe's question whether there is anything new, and all that signing adds to a deployment.

    python bench/trust.py [--rounds 200] [--json]

The question is the processor time of the Mainframe, the median of many; OMEGA's repository is served on loopback by
other threads, whose time is not counted. The deployment is the wall time, the median of a tenth as many, of everything
that is done for trust alone: two statements of provenance, what is to be signed and the way back, two approvers'
signatures over both, judging them at the gate, on OMEGA (its answer to the promotion, and publishing), and on a
Mainframe that fetches what is new.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ashat.client.transport import Transport  # noqa: E402
from ashat.node.omega.trust import OmegaTrust  # noqa: E402
from ashat.trust.client import ReleaseClient  # noqa: E402
from ashat.trust.proposal import spell  # noqa: E402
from tests.support.omega import decide, promotion  # noqa: E402
from tests.support.signing import People  # noqa: E402
from tests.support.trust import World, document, mainframe, serving  # noqa: E402

QUESTION_LIMIT_MS = 15.0
DEPLOYMENT_LIMIT_MS = 500.0


def main() -> int:
    """Print the figures, or one JSON object; 1 where one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    question = statistics.median(ask(options.rounds))
    deployment = statistics.median(deploy(max(options.rounds // 10, 3)))
    figures = {
        "anything_new_cpu_ms": (question, QUESTION_LIMIT_MS),
        "deployment_ms": (deployment, DEPLOYMENT_LIMIT_MS),
    }
    result = {
        name: {"median": round(value, 2), "limit": limit, "reached": value <= limit}
        for name, (value, limit) in figures.items()
    }
    if options.json:
        print(json.dumps({"rounds": options.rounds, **result}, indent=2))
    else:
        for name, (value, limit) in figures.items():
            reached = "reached" if value <= limit else "MISSED"
            print(f"{name.removesuffix('_ms').replace('_', ' '):18}{value:7.1f} ms, at most {limit:.0f} ms: {reached}")
    return 0 if all(value <= limit for value, limit in figures.values()) else 1


def ask(rounds: int) -> list[float]:
    """Milliseconds of this thread's processor time for each question, once the first release is known."""
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


def deploy(rounds: int) -> list[float]:
    """Milliseconds that trust takes of each of a number of deployments, one after the other."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as name:
        directory, people = Path(name), People(machines=True)
        omega = OmegaTrust(directory / "omega")
        begun = people.begin_with(omega.state())
        omega.install(begun)
        assert begun.root is not None
        with serving(directory / "omega" / "repository") as server, Transport(server.url, name="OMEGA") as transport:
            root = begun.root.encode()
            client = ReleaseClient(transport, directory / "cache", root=root, metadata_url="", target="omega")
            taken = []
            for number in range(1, rounds + 1):
                began = time.perf_counter()
                _deploy(omega, people, client, number)
                taken.append((time.perf_counter() - began) * 1000)
    return taken


def _deploy(omega: OmegaTrust, people: People, client: ReleaseClient, number: int) -> None:
    before = f"{number - 1:064x}" if number > 1 else None
    # A way back takes the number after its release's.
    decision = decide(f"{number:064x}", expected=before, seq=2 * number, update=f"UPD-{number}")
    proposal = people.propose(omega.state(), decision)
    signatures = [proposal.read(spell(proposal.sign(key))) for key in people.keys[:2]]
    signed = proposal.signed_release(signatures)
    if omega.judge(promotion(decision, signed=signed)) is None:
        raise SystemExit("OMEGA demanded no signature, so nothing was measured.")
    omega.publish(signed)
    if client.latest_release("stable").update_id != decision.update_id:
        raise SystemExit("The Mainframe saw another release than was published.")


if __name__ == "__main__":
    raise SystemExit(main())
