"""`deploy sbom`: what a release is built from, for a person, or as the CycloneDX document that the evidence names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.errors import LedgerError, SessionError, UsageError
from ashat.ledger.opening import open_ledger


def sbom(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that was verified.")],
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt.", show_default="the last")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the CycloneDX document to a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document itself, byte for byte.")] = False,
) -> None:
    """Show what a release is built from: its packages with their versions, as the last verification read them."""
    from ashat.common.canonical_json import canonical_json

    digest, document = _found(update_id, attempt)
    whole = canonical_json(document)
    if out is not None:
        try:
            out.write_bytes(whole)
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
    if as_json:
        output.write_exactly(whole.decode())
    elif out is not None:
        output.say(f"📄 {out}: the SBOM {digest}")
    else:
        for line in _lines(update_id, digest, document):
            output.say(line)


def _found(update_id: str, attempt: int | None) -> tuple[str, dict[str, Any]]:
    from ashat.verification.evidence import Evidence

    with open_ledger() as ledger:
        state = ledger.load(update_id, attempt)
        if state.evidence is None:
            raise SessionError(f"Deployment '{update_id}' has no SBOM yet: a verification makes one.")
        digest = Evidence.read(ledger.document(state.evidence)).sbom
        if digest is None:
            raise SessionError(
                f"The evidence of '{update_id}' is of a version that made no SBOM: deploy verify {update_id} --fresh."
            )
        try:
            return digest, ledger.document(digest)
        except LedgerError as error:
            raise LedgerError(f"{error} It was the SBOM of '{update_id}': restore the ledger from a backup.") from None


def _lines(update_id: str, digest: str, document: dict[str, Any]) -> Iterator[str]:
    components = document["components"]
    counts = Counter(str(each["purl"]).removeprefix("pkg:").partition("/")[0] for each in components)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    count = f"{len(components)} package" + ("" if len(components) == 1 else "s")
    yield f"📦 {update_id} is built from {count}" + (f": {kinds}" if kinds else "")
    yield f"  SBOM  {digest}"
    if any(each["aggregate"] == "incomplete" for each in document["compositions"]):
        yield f"  ⚠️  Not all of it could be read or told: deploy evidence {update_id} says what"
    for each in components:
        scope = ", for development only" if each.get("scope") == "optional" else ""
        yield f"  {each['purl']}" + ("" if "version" in each else ", without an exact version") + scope
