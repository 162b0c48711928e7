"""People with keys, the trust root that they made for an OMEGA, and what they sign."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import CryptoSigner

from ashat.client.node import NodeClient
from ashat.trust.documents import ReleaseDocument
from ashat.trust.keys import OnlinePublicKeys
from ashat.trust.metadata import Holders, Lifetimes, build_root, build_targets, sign
from ashat.trust.proposal import Proposal
from ashat.wire import Decision, OperationRequest, TrustMetadata, TrustState
from tests.support.omega import decide, promotion
from tests.support.trust import key_pair

LIFETIMES = Lifetimes()


class People:
    """Three approvers, of whom two must sign; they hold root and targets too."""

    def __init__(self) -> None:
        self.keys = [key_pair(name) for name in ("kim", "lee", "noa")]

    def begin(self, omega: NodeClient, target: str = "omega") -> TrustMetadata:
        """The first root and targets for `omega`, signed, not sent."""
        online = OnlinePublicKeys.of(omega.trust().online)
        holders = Holders([key.public_key for key in self.keys], 2)
        now = datetime.now(UTC)
        root = build_root(
            root=holders,
            targets=holders,
            snapshot=online.snapshot,
            timestamp=online.timestamp,
            lifetime=LIFETIMES.root,
            now=now,
        )
        targets = build_targets(approvers=holders, lifetime=LIFETIMES.targets, now=now)
        for key in self.keys[:2]:
            sign(root.signed, "root", root, key)
            sign(root.signed, "targets", targets, key)
        return TrustMetadata(target=target, root=root.to_bytes().decode(), targets=targets.to_bytes().decode())

    def propose(self, trust: TrustState, decision: Decision, *, channel: str = "stable", **changes: Any) -> Proposal:
        """What `decision` wants to be signed, and the way back to what it replaces; `changes` are of the document."""
        fields = {
            "channel": channel,
            "target": decision.target,
            "update_id": decision.update_id,
            "attempt": decision.attempt,
            "release_seq": decision.release_seq,
            "bundle": decision.bundle,
            "evidence": decision.evidence,
            "expires": datetime.now(UTC) + timedelta(days=30),
        }
        release = ReleaseDocument.model_validate(fields | changes)
        back = None
        if decision.expected_current:
            told = {"release_seq": release.release_seq + 1, "bundle": decision.expected_current, "update_id": "UPD-1"}
            back = release.model_copy(update=told)
        assert trust.targets is not None
        return Proposal.make(
            trust.targets.encode(),
            trust.production.encode() if trust.production else None,
            release,
            back,
            lifetime=LIFETIMES.production,
            now=datetime.now(UTC),
        )

    def promotion(
        self, omega: NodeClient, bundle: str, update: str, *signers: CryptoSigner, **changes: Any
    ) -> tuple[OperationRequest, OperationRequest | None]:
        """A promotion as `signers` (else kim and lee) signed it, and the rollback that they signed with it."""
        state = omega.state()
        current = state.current.bundle if state.current else None
        decision = decide(bundle, expected=current, seq=state.release_seq + 1, update=update)
        proposal = self.propose(omega.trust(), decision, **changes)
        signatures = [proposal.sign(key) for key in signers or self.keys[:2]]
        request = promotion(decision, signed=proposal.signed_release(signatures))
        if current is None:
            return request, None
        back = OperationRequest(
            action="rollback",
            bundle=current,
            expected_current=bundle,
            update_id="UPD-1",
            attempt=1,
            signed=proposal.signed_way_back(signatures),
        )
        return request, back
