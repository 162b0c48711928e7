"""People with keys, the trust root that they made for an OMEGA, and what they sign."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from ashat.client.node import NodeClient
from ashat.common.canonical_json import canonical_json
from ashat.common.identifiers import new_key
from ashat.errors import NodeConflictError
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Decision, OperationRequest, Role, Scope, Source, TrustMetadata, TrustState
from ashat.trust.keys.files import OnlinePublicKeys
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.provenance import attest_build, attest_evidence, provenance_of
from ashat.trust.release.release import Release
from ashat.trust.tuf.metadata import Holders, Lifetimes, Roles, build_root, build_targets, sign
from ashat.trust.tuf.release_document import ReleaseDocument
from tests.support.builders.trust_world import key_pair
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.omega import decide, eventually, promotion

LIFETIMES = Lifetimes()


def provenance(
    builder: CryptoSigner, verifier: CryptoSigner, bundle: str, evidence: str, *, outcome: str = "passed"
) -> str:
    """The provenance of a release, by those two."""
    source = Source(name="raos", commit="c" * 40, dirty=True, who="Kim <kim@example.com>")
    build = attest_build(builder, bundle=bundle, update_id="UPD-1", attempt=1, source=source, pushed_by="kim@alpha")
    checked = attest_evidence(verifier, bundle=bundle, evidence=evidence, outcome=outcome, policy="d" * 64)
    return canonical_json(provenance_of(build, checked)).decode()


class People:
    """Three approvers, of whom two must sign; they hold root and targets too. With `machines` they demand a provenance
    by the builder `alpha` and the verifier `control`."""

    def __init__(self, *, machines: bool = False) -> None:
        self.keys = [key_pair(name) for name in ("kim", "lee", "noa")]
        self.machines = [key_pair(name) for name in ("alpha", "control")] if machines else []
        self._proposed: dict[str, Release] = {}

    def begin(self, omega: NodeClient, target: str = "omega") -> TrustMetadata:
        """The first root and targets for `omega`, signed, not sent."""
        return self.begin_with(omega.trust(), target)

    def begin_with(self, trust: TrustState, target: str = "omega") -> TrustMetadata:
        """The same, for the OMEGA that has the keys of `trust`."""
        online = OnlinePublicKeys.of(trust.online)
        holders = Holders([key.public_key for key in self.keys], 2)
        now = datetime.now(UTC)
        machines = [key.public_key for key in self.machines]
        roles = Roles(holders, holders, holders, online.snapshot, online.timestamp, machines[:1], machines[1:])
        root = build_root(roles, lifetime=LIFETIMES.root, now=now)
        targets = build_targets(roles, lifetime=LIFETIMES.targets, now=now)
        for key in self.keys[:2]:
            sign(root.signed, "root", root, key)
            sign(root.signed, "targets", targets, key)
        return TrustMetadata(target=target, root=root.to_bytes().decode(), targets=targets.to_bytes().decode())

    def propose(self, trust: TrustState, decision: Decision, *, channel: str = "stable", **changes: Any) -> Proposal:
        """What `decision` wants to be signed, and the way back to what it replaces, if that was proposed here, too;
        `changes` are of the document."""
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
        provenances = {}
        if self.machines and "provenance" not in changes:
            text = provenance(self.machines[0], self.machines[1], decision.bundle, decision.evidence)
            named = sha256(text.encode()).hexdigest()
            fields["provenance"], provenances[named] = named, text
        release = ReleaseDocument.model_validate(fields | changes)
        before = self._proposed.get(decision.expected_current or "")
        back = None
        if before is not None:
            fresh = {"release_seq": release.release_seq + 1, "expires": release.expires, "log": release.log}
            back = before.document.model_copy(update=fresh)
            provenances[back.provenance or ""] = before.provenance or ""
        assert trust.targets is not None
        proposal = Proposal.make(
            trust.targets.encode(),
            trust.production.encode() if trust.production else None,
            (release, back),
            lifetime=LIFETIMES.production,
            now=datetime.now(UTC),
            provenances=provenances,
        )
        self._proposed[release.bundle] = proposal.release
        return proposal

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
        if proposal.rollback is None:
            return request, None
        back = OperationRequest(
            action="rollback",
            bundle=current,
            expected_current=bundle,
            update_id=proposal.rollback.document.update_id,
            attempt=proposal.rollback.document.attempt,
            signed=proposal.signed_rollback(signatures),
        )
        return request, back


def demanding_omega(directory: Path) -> NodeProcess:
    """An OMEGA in `directory` that takes nothing unsigned. Close it."""
    return NodeProcess(directory, role=Role.OMEGA, app=tiny_app(), settings={"unsigned_releases": False})


def install_root(omega: NodeProcess, people: People, file: Path) -> Path:
    """Have OMEGA keep the root that the people made; write it to `file`, as an installer brings it."""
    with omega.client(Scope.PROMOTE) as client:
        given = people.begin(client)
        client.put_trust(given)
    assert given.root is not None
    file.write_text(given.root)
    return file


class Customer(NodeProcess):
    """A Mainframe in `directory` of the OMEGA `of`."""

    def __init__(self, directory: Path, of: NodeProcess, **settings: Any) -> None:
        self.key = new_key()
        with of.client() as client:
            client.put_licence(LicenceRequest(key=self.key, name=directory.name))
        settings = {"poll_interval": 0.2, "unsigned_releases": False, **settings}
        super().__init__(
            directory, role=Role.MAINFRAME, app=tiny_app(), settings=settings, omega=of.url, licence_key=self.key
        )

    def wait_for(self, status: str, *words: str) -> None:
        """Wait until its agent says that."""

        def look() -> bool:
            with self.client() as client:
                agent = client.state().agent
            return agent is not None and agent.status == status and all(word in agent.detail for word in words)

        eventually(look, f"{status} {words}", self)

    @property
    def runs(self) -> str | None:
        """The bundle that it runs."""
        with self.client() as client:
            current = client.state().current
        return current.bundle if current else None


def refused(client: NodeClient, request: OperationRequest, code: str, *words: str) -> None:
    """See that OMEGA refuses it, and that nothing changed."""
    before = client.state()
    with pytest.raises(NodeConflictError) as error:
        client.start_operation(f"refused-{id(request)}", request)
    assert error.value.body["error"] == code
    assert all(word in str(error.value) for word in words), str(error.value)
    after = client.state()
    assert (after.current, after.release_seq, after.operation) == (before.current, before.release_seq, before.operation)
