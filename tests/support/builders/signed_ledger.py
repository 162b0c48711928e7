"""A home whose ledger holds releases that were approved, signed and distributed, for receipts and audits."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from ashat.audit.sign import sign_log
from ashat.bundle.pack import pack_directory
from ashat.common.canonical_json import canonical_json
from ashat.deployment import events as e
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import SignedRelease, Source
from ashat.receipts.receipt import Receipt
from ashat.receipts.write import write_receipt
from ashat.transparency.log_signer import LogSigner
from ashat.trust.release.machine_keys import ROLES, machine_signer
from ashat.trust.release.proposal import Proposal
from ashat.trust.tuf.release_document import LogEntry, ReleaseDocument
from tests.support.builders.evidence import evidence, six_checks
from tests.support.builders.ledgers import FAR, T0, honest
from tests.support.builders.signers import provenance
from tests.support.builders.trust_world import document
from tests.support.processes.node import tiny_bundle

ACME = e.MainframeOutcome(id="a" * 12, name="acme", result="running")
BOLT = e.MainframeOutcome(id="b" * 12, name="bolt", result="missing", reason="not heard of yet")
COOK = e.MainframeOutcome(id="c" * 12, name="cook", result="failed", reason="its port is taken")


class Office:
    """A home with a ledger in which releases are approved, and the tree that they ship."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.tree = tiny_bundle(directory / "tree")
        with pack_directory(self.tree) as packed:
            self.bundle = packed.manifest.digest
        self.last: SignedRelease | None = None
        self.provenances: dict[str, str] = {}
        self.ledger = Ledger.open(f"sqlite:///{self.home / 'ledger.db'}")

    def approve(
        self,
        targets: bytes,
        *signers: CryptoSigner,
        update: str = "UPD-1",
        logged: bool = True,
        built: str = "",
        seen: str = "",
        back: dict[str, Any] | None = None,
        **changes: Any,
    ) -> ReleaseDocument:
        """Bring an update to OMEGA, and to one of three Mainframes.

        Its provenance is about the bundle `built`, the evidence about `seen`; `changes` are of what is signed. With
        `back` the way back is signed, too, to what was approved last but for these changes.
        """
        ledger, found = self.ledger, evidence(update, bundle=seen or self.bundle, checks=six_checks()[:2])
        digest = ledger.put_document("evidence", found.document())
        state = ledger.create(update, e.Created(at=T0, by="kim", description="More", target="omega", public="public"))

        def add(event: Any) -> None:
            nonlocal state
            state = ledger.append(state, event)

        origin = provenance(*(machine_signer(self.home, role) for role in ROLES), built or self.bundle, digest)
        statements = json.loads(origin)
        told, checked = (ledger.put_document("attestation", statements[part]) for part in ("build", "evidence"))
        source = Source(name="sample")
        add(e.Packaged(at=T0, bundle=self.bundle, files=1, size=1, source=source, attestation=told))
        add(e.PublicSwitching(at=T0, from_bundle=None))
        add(e.Pushed(at=T0, url="http://public"))
        add(e.VerificationStarted(at=T0))
        add(e.Verified(at=T0, evidence=digest, outcome="passed", checks=(), attestation=checked))
        add(e.GateOpened(at=T0, opening=1, expires=FAR))
        note, key, _ = sign_log(ledger, self.home)
        entry = LogEntry(checkpoint=note, key=key) if logged else None
        named = sha256(origin.encode()).hexdigest()
        fields = {"bundle": self.bundle, "evidence": digest, "log": entry, "provenance": named}
        fields |= changes
        release = document(ledger.highest_release_seq("omega") + 1, update_id=update, **fields)
        self.provenances[named] = origin
        last = self.last if back is not None else None
        way = {"release_seq": release.release_seq + 1, "expires": release.expires, "log": release.log, **(back or {})}
        replaced = ReleaseDocument.from_bytes(last.document.encode()) if last else None
        proposal = Proposal.make(
            targets,
            last.production.encode() if last else None,
            (release, replaced.model_copy(update=way) if replaced else None),
            lifetime=9e6,
            now=datetime.now(UTC),
            provenances=self.provenances,
            replaced=replaced,
        )
        self.last = proposal.signed_release([proposal.sign(signer) for signer in signers])
        shown, proposed = ledger.put_document("gate", {"m": "?"}), ledger.put_document("proposal", proposal.to_json())
        for number, signer in enumerate(signers, 1):
            add(e.ApprovalRequested(at=T0, ordinal=number, target_bundle=None, shown=shown, proposal=proposed))
            signature, last = proposal.sign(signer), number == len(signers)
            answer = {"approver": signature.name, "comment": "read it\x1b[2J" if last else "", "signature": signature}
            at, sequence = T0 + timedelta(hours=number), release.release_seq if last else None
            add(
                e.ApprovalAnswered(
                    at=at, ordinal=number, decision="approve", accepted=True, release_seq=sequence, **answer
                )
            )
        add(e.Promoting(at=T0, operation="op"))
        add(e.Promoted(at=T0, from_bundle=None, release_seq=release.release_seq))
        add(e.Distributed(at=T0, mainframes=(ACME, BOLT, COOK)))
        honest(ledger, f"{update}-later")
        return release

    def receipt(self, update: str = "UPD-1", mainframe: str = "") -> bytes:
        """The receipt of an update."""
        return write_receipt(self.ledger, self.home, self.ledger.load(update), mainframe).receipt.to_bytes()

    def sealed(self, content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
        """The receipt with a change, sealed as who has the key of the log could."""
        made = Receipt.from_bytes(altered(content, change))
        seal = LogSigner(self.home, self.ledger.log_head()[0]).sign_note(made.sealed_text)
        return made.model_copy(update={"seal": seal}).to_bytes()


def altered(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The receipt with a change, spelled as it should be."""
    found = json.loads(content)
    change(found)
    return canonical_json(found) + b"\n"
