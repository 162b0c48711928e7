"""Who built a release and from what, and what the checks saw of it: in-toto statements in DSSE envelopes.

A release's provenance is one canonical JSON document of two envelopes (https://github.com/secure-systems-lab/dsse),
each over an in-toto Statement v1 (https://github.com/in-toto/attestation) whose subject is the bundle:

build      SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance), signed at push by the key of the builder
evidence   an in-toto test result v0.1, which names the evidence by its digest, signed by the key of who verified

Approvers sign the digest of the whole with the release document. Who may build and verify stands in `targets`, as the
roles `builder` and `verifier`: these sign no TUF metadata, so they are delegated no path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import Signer
from tuf.api.metadata import Targets

from ashat.common.canonical_json import canonical_json
from ashat.common.documents import load_json
from ashat.common.text import first_misfit
from ashat.errors import MalformedMetadataError, UnprovenError
from ashat.protocol.messages import Source
from ashat.protocol.origins import Artifact, Differences
from ashat.trust.keys.files import name_of
from ashat.trust.tuf.metadata import BUILDER, VERIFIER, Holders, check_delegation, delegates, holders_of
from ashat.trust.tuf.release_document import Digest, ReleaseDocument

MAX_BYTES: Final = 64 * 1024
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
BUILD_PREDICATE: Final = "https://slsa.dev/provenance/v1"
RESULT_PREDICATE: Final = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE: Final = "urn:ashat-deploy:pack:1"
_FORMAT = "ashat-provenance/1"
_RESULTS = {"passed": "PASSED", "attention": "WARNED", "failed": "FAILED"}

Attestation = dict[str, Any]
"""A DSSE envelope as JSON."""


class _Part(BaseModel):
    """What of a statement is read here; unknown fields are to be ignored, as in-toto says."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Digests(_Part):
    sha256: Digest


class _Resource(_Part):
    digest: _Digests


class Parameters(_Part):
    """Of what, and by whom, a bundle was packed. Names are as they were told; `commit` is None outside git. `dirty`,
    `differences` and `artifact` are as of `ashat.protocol.messages.Source`; `tasks` as of the event `Packaged`, None
    where there are none."""

    update_id: str = Field(alias="updateId", max_length=200)
    attempt: int
    source: str
    branch: str | None = None
    commit: str | None = None
    dirty: bool
    differences: Differences | None = None
    artifact: Artifact | None = None
    author: str = ""
    pushed_by: str = Field(alias="pushedBy", default="")
    tasks: tuple[str, ...] | None = None


class _Definition(_Part):
    build_type: Literal["urn:ashat-deploy:pack:1"] = Field(alias="buildType")
    parameters: Parameters = Field(alias="externalParameters")


class _BuildPredicate(_Part):
    definition: _Definition = Field(alias="buildDefinition")


class _ResultPredicate(_Part):
    result: Literal["PASSED", "WARNED", "FAILED"]
    evidence: _Resource


class _Statement(_Part):
    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Resource] = Field(min_length=1, max_length=1)


Kind = TypeVar("Kind", bound=_Statement)


class _Build(_Statement):
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = Field(alias="predicateType")
    predicate: _BuildPredicate


class _Result(_Statement):
    predicate_type: Literal["https://in-toto.io/attestation/test-result/v0.1"] = Field(alias="predicateType")
    predicate: _ResultPredicate


@dataclass(frozen=True)
class VerifiedProvenance:
    """What a provenance says. `builder` and `verifier` are what `targets` calls the keys that signed; `verifier` is ""
    where it names none."""

    parameters: Parameters
    builder: str
    builder_key: str
    verifier: str


def attest_build(
    signer: Signer,
    *,
    bundle: str,
    update_id: str,
    attempt: int,
    source: Source,
    pushed_by: str,
    tasks: tuple[str, ...] = (),
) -> Attestation:
    """Sign the builder's statement about what was packed as `bundle`.

    Raises:
        MalformedMetadataError: it would be larger than a provenance may be.
    """
    parameters = Parameters(
        updateId=update_id,
        attempt=attempt,
        source=source.name,
        branch=source.branch,
        commit=source.commit,
        dirty=source.dirty,
        differences=source.differences,
        artifact=source.artifact,
        author=source.who,
        pushedBy=pushed_by,
        tasks=tasks or None,
    )
    return _attest(
        signer,
        bundle,
        BUILD_PREDICATE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters.model_dump(mode="json", by_alias=True, exclude_none=True),
                "resolvedDependencies": _resolved(source),
            },
            "runDetails": {
                "builder": {"id": f"urn:ashat-deploy:builder:{signer.public_key.keyid}"},
                "metadata": {"invocationId": f"{update_id}/{attempt}"},
            },
        },
    )


def _resolved(source: Source) -> list[dict[str, Any]]:
    """What the bundle was packed from, as in-toto describes resources: by the commit, or by the artifact's digest."""
    if source.artifact is not None:
        return [{"name": source.artifact.name, "digest": {"sha256": source.artifact.digest}}]
    return [{"name": source.name, "digest": {"gitCommit": source.commit}}] if source.commit else []


def attest_evidence(signer: Signer, *, bundle: str, evidence: str, outcome: str, policy: str) -> Attestation:
    """Sign the verifier's statement that the checks of `bundle` ended as `outcome`, as `evidence` says.

    `evidence` and `policy` are digests.
    """
    return _attest(
        signer,
        bundle,
        RESULT_PREDICATE,
        {
            "result": _RESULTS[outcome],
            "configuration": [{"name": "verification policy", "digest": {"sha256": policy}}],
            "evidence": {"name": "evidence", "digest": {"sha256": evidence}},
        },
    )


def provenance_of(build: Attestation, evidence: Attestation | None) -> dict[str, Any]:
    """Join two statements into a provenance, as the ledger keeps it; its digest is what approvers sign.

    `evidence` is None where nobody signed what the checks saw, as before that was done.
    """
    return {"format": _FORMAT, "build": build, "evidence": evidence}


def demands_provenance(targets: Targets) -> bool:
    """Tell whether `targets` names anybody who must have built, or verified, what is released."""
    return delegates(targets, BUILDER) or delegates(targets, VERIFIER)


def check_digest(document: ReleaseDocument, provenance: str | bytes | None) -> None:
    """Check that `provenance` is the one that `document` names, or that there is none where it names none.

    Raises:
        UnprovenError: it is another.
    """
    content = provenance.encode() if isinstance(provenance, str) else provenance
    if (sha256(content).hexdigest() if content is not None else None) != document.provenance:
        raise UnprovenError(f"The provenance given is not the one that was approved with {document.update_id}.")


def verify_provenance(
    targets: Targets, document: ReleaseDocument, provenance: str | bytes | None
) -> VerifiedProvenance | None:
    """Check that `provenance` is the one that approvers signed with `document`, by whom `targets` names to build and to
    verify, about that bundle and that evidence; by whichever of the two it names. None where it names no builder, as
    nobody shows then where the bundle comes from.

    Raises:
        UnprovenError: it is missing, or is none of that.
        MalformedMetadataError: it cannot be read.
        KeyPolicyError: `targets` names one key twice.
    """
    if not demands_provenance(targets):
        return None
    if document.provenance is None or provenance is None:
        wanted = _holders(targets, BUILDER if delegates(targets, BUILDER) else VERIFIER)
        raise UnprovenError(
            f"{document.update_id} comes without a provenance, and one by {wanted} is demanded: push it with a version "
            "that signs one, and verify it again."
        )
    check_digest(document, provenance)
    content = read_provenance(provenance)
    built = None
    if delegates(targets, BUILDER):
        built = _verified(targets, BUILDER, content.get("build"), _Build, document.bundle)
    verifier = _verifier(targets, content, document) if delegates(targets, VERIFIER) else ""
    if built is None:
        return None
    build, builder, key = built
    return VerifiedProvenance(build.predicate.definition.parameters, builder, key, verifier)


def _verifier(targets: Targets, content: dict[str, Any], document: ReleaseDocument) -> str:
    """Verify that the checks of the release did not fail; return what `targets` calls who signed that."""
    result, verifier, _ = _verified(targets, VERIFIER, content.get("evidence"), _Result, document.bundle)
    if result.predicate.evidence.digest.sha256 != document.evidence:
        raise UnprovenError(f"{verifier} signed other evidence than was approved with {document.update_id}.")
    if result.predicate.result == "FAILED":
        raise UnprovenError(f"{verifier} saw the checks of {document.update_id} fail.")
    return verifier


def _attest(signer: Signer, bundle: str, predicate_type: str, predicate: dict[str, Any]) -> Attestation:
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": "bundle", "digest": {"sha256": bundle}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    envelope = Envelope(canonical_json(statement), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    made: Attestation = envelope.to_dict()
    if len(canonical_json(made)) > MAX_BYTES // 2:
        raise MalformedMetadataError("What is known of the source is too long to be signed as its provenance.")
    return made


def read_provenance(provenance: str | bytes) -> dict[str, Any]:
    """Read the two statements of a provenance, `build` and `evidence`, unverified.

    Raises:
        MalformedMetadataError: it is none that this version can read.
    """
    try:
        content = load_json(provenance, limit=MAX_BYTES)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError("it is of another format")
        if canonical_json(content) != (provenance.encode() if isinstance(provenance, str) else provenance):
            raise ValueError("it is not in its canonical spelling")
    except ValueError as error:
        raise MalformedMetadataError(f"This is no provenance that this version can read: {error}.") from None
    return content


def _verified(targets: Targets, role: str, attestation: object, kind: type[Kind], bundle: str) -> tuple[Kind, str, str]:
    """Verify the statement of a holder of `role` about `bundle`; return it, the holder's name, and the public key."""
    check_delegation(targets, role)
    held, envelope = Holders.of(targets, role), _envelope(role, attestation)
    try:
        signed = envelope.verify(list(held.keys), held.threshold)
    except SecureSystemsError:
        theirs = ", ".join(sorted(envelope.signatures))[:12] or "nobody"
        raise UnprovenError(
            f"The {role}'s statement is signed by {theirs}, and not by {_holders(targets, role)}, whom targets names: "
            "do it there again, or let the holders of targets name that machine, too."
        ) from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise MalformedMetadataError(f"The {role}'s statement is of the type {envelope.payload_type[:80]!r}.")
    try:
        statement = kind.model_validate_json(envelope.payload)
    except ValidationError as error:
        raise MalformedMetadataError(f"The {role}'s statement cannot be read: {first_misfit(error)}.") from None
    if statement.subject[0].digest.sha256 != bundle:
        raise UnprovenError(f"The {role}'s statement is about another bundle than was approved.")
    key = next(iter(signed.values()))
    return statement, name_of(key), str(key.keyval["public"]).lower()


def _envelope(role: str, attestation: object) -> Envelope:
    try:
        # It changes what it is given.
        copied = json.loads(json.dumps(attestation))
        return Envelope.from_dict(copied)
    except (KeyError, ValueError, TypeError, AttributeError, SecureSystemsError):
        raise MalformedMetadataError(f"The {role}'s statement is in no DSSE envelope that can be read.") from None


def _holders(targets: Targets, role: str) -> str:
    return " or ".join(holders_of(targets, role))
