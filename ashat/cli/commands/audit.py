"""`deploy audit`: checkpoints of the record, exports of it, and whether it is still what it was. None needs Prefect."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.output import Json
from ashat.common.home import home
from ashat.errors import AuditError, LedgerError, UsageError
from ashat.ledger.opening import open_ledger
from ashat.ledger.remembered import remembered_ledgers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashat.audit.approvals import Approvals
    from ashat.audit.auditor import Auditor
    from ashat.audit.export import Export
    from ashat.transparency.checkpoint import Checkpoint, Verifier

_ROOT_BYTES = 1 << 20

audit_app = typer.Typer(help="Prove that the record is what it was: sign it, hand it out, hold it against that.")

Key = Annotated[str, typer.Option(metavar="VKEY", help="The verifier key of the signatures, or a file that holds it.")]
Since = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="An older checkpoint or export, which the record has to continue."),
]


TrustRoot = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A root.json from elsewhere, by which approvals count; several times."),
]


@audit_app.command("checkpoint", short_help="Sign the record as it is now.")
def checkpoint(as_json: Json = False) -> None:
    """Print a signed checkpoint of the record as it is now, in the format of c2sp.org/tlog-checkpoint.

    Whoever keeps it can prove later whether the record still begins with what it was.
    """
    from ashat.audit.sign import sign_log

    with open_ledger() as ledger:
        note, vkey, _ = sign_log(ledger, home())
    if as_json:
        from ashat.transparency.checkpoint import Checkpoint

        found = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
        output.show_json({**_told(found), "origin": found.origin, "checkpoint": note, "key": vkey})
        return
    output.write(note)


@audit_app.command("export", short_help="Write the record into one file.")
def export(file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")]) -> None:
    """Write a signed checkpoint, every event, every document they name and the roots of who approves into one file that
    can be checked offline.
    """
    from ashat.audit.auditor import with_documents
    from ashat.audit.export import write_export
    from ashat.audit.sign import sign_log
    from ashat.transparency.checkpoint import Checkpoint
    from ashat.trust.authority.authority import kept_roots

    roots = kept_roots(home())
    with open_ledger() as ledger:
        note, vkey, _ = sign_log(ledger, home(), documents=True)
        size = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").size
        write_export(file, note, with_documents(ledger.records(limit=size), ledger.document_text), roots)
    output.say(f"📦 {file}: {_events(size)}")
    output.say(f"  Whoever checks it needs this key, from you and not from the file: {vkey}")


@audit_app.command("verify", short_help="Hold the record against what was signed.")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="An export; without it, the ledger here.", show_default=False),
    ] = None,
    key: Key = "",
    since: Since = None,
    trust_root: TrustRoot = None,
    as_json: Json = False,
) -> None:
    """Check every event, every document, the order, and who signed what; name the first event that does not fit.

    Checkpoints are held against VKEY; without it, against the key that signs on this machine. Approvals are held
    against --trust-root; without it, against the root that came with the export, or that is here.
    """
    pinned = [_root(path) for path in trust_root or ()]
    try:
        report = _verify_export(file, key, since, pinned) if file else _verify_ledger(key, since, pinned)
    except (AuditError, LedgerError) as error:
        if as_json:
            named = {name: getattr(error, name, None) for name in ("event", "update_id", "attempt", "version")}
            output.show_json({"fits": False, "why": str(error), **named})
        raise
    if as_json:
        output.show_json({"fits": True, **report})
        return
    output.say(f"🔏 Audit of {report['origin']}")
    for line in output.columns(_lines(report)):
        output.say(line)
    output.say(_verdict(report))


def _verdict(report: dict[str, Any]) -> str:
    if not report["events"]:
        return "⚠️ The record is empty: no event was looked at."
    if report["checkpoint"] is None and report["since"] is None:
        return "✅ Every event that is here fits. Nothing signed is here that says whether some are missing."
    return "✅ Every event fits."


def _verify_ledger(key: str, since: Path | None, pinned: list[bytes]) -> dict[str, Any]:
    from ashat.audit.approvals import Approvals
    from ashat.audit.auditor import Auditor
    from ashat.audit.sign import audit_log, check_beside_events
    from ashat.transparency.log_signer import LogSigner
    from ashat.trust.authority.authority import kept_roots

    with open_ledger() as ledger:
        origin = ledger.log_head()[0]
        older, hashes = _older(since, key, origin) if since else (None, ())
        approvals = Approvals(origin, kept_roots(home()), pinned)
        # The size, then the list, then the events: what is appended meanwhile is no gap.
        head, listed = ledger.log_row(), ledger.listed()
        auditor = audit_log(ledger, Auditor(appended=head.size, expected=hashes, follower=approvals))
        auditor.check_head(head)
        unchecked = [why for why in (check_beside_events(ledger, auditor),) if why]
    signer = LogSigner(home(), origin)
    signed = signer.last()
    for known in (older, signed):
        if known is not None:
            auditor.require_extends(known)
    auditor.check_list(listed)
    elsewhere = [k for k in remembered_ledgers(home()) if k.directory != signer.directory]
    unchecked += [f"{ledger.name}, which lay at {ledger.address}: another ledger" for ledger in elsewhere]
    report = _approvals(approvals, "kept here")
    return {
        **_report(auditor, origin, signed, older, signer.verifier() if signed else None),
        **report,
        "unchecked": [*report["unchecked"], *unchecked],
    }


def _verify_export(file: Path, key: str, since: Path | None, pinned: list[bytes]) -> dict[str, Any]:
    from ashat.audit.approvals import Approvals
    from ashat.audit.export import Export
    from ashat.transparency.checkpoint import open_checkpoint, origin_of

    with Export(file) as opened:
        origin = origin_of(opened.note)
        verifier = _verifier(key, origin)
        signed = open_checkpoint(opened.note, [verifier])
        older, hashes = _older(since, key, origin) if since else (None, ())
        approvals = Approvals(origin, opened.roots, pinned)
        auditor = _checked(opened, signed, hashes, approvals)
    if older is not None:
        auditor.require_extends(older)
    return {**_report(auditor, origin, signed, older, verifier), **_approvals(approvals, "from the export")}


def _checked(
    opened: Export, signed: Checkpoint, expected: Sequence[bytes] = (), approvals: Approvals | None = None
) -> Auditor:
    """Check that the events of an export are those of its checkpoint; with `approvals`, who signed what, too."""
    from ashat.audit.auditor import Auditor

    auditor = Auditor(expected=expected, follower=approvals)
    for item in opened.items():
        auditor.check(item)
    auditor.end()
    auditor.require_extends(signed, whole=True)
    return auditor


def _older(path: Path, key: str, origin: str) -> tuple[Checkpoint, Sequence[bytes]]:
    """Open what `--since` names: the checkpoint, and the leaf hashes where it is an export."""
    from ashat.audit.auditor import check_origin
    from ashat.audit.export import Export, is_export
    from ashat.common.files import read_bounded
    from ashat.transparency.checkpoint import LONGEST_NOTE, open_checkpoint

    verifier = _verifier(key, origin)
    if is_export(path):
        with Export(path) as opened:
            signed = open_checkpoint(opened.note, [verifier])
            check_origin(signed, origin, str(path))
            try:
                return signed, _checked(opened, signed).hashes
            except AuditError as error:
                raise AuditError(f"{path} itself is not what was signed: {error}") from None
    try:
        signed = open_checkpoint(read_bounded(path, LONGEST_NOTE).decode("utf-8"), [verifier])
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path} cannot be read as a checkpoint: it is no text in UTF-8.") from None
    check_origin(signed, origin, str(path))
    return signed, ()


def _verifier(key: str, origin: str) -> Verifier:
    """Find the key that signatures are checked by: the one that was given, or the one of this machine."""
    from ashat.transparency.checkpoint import Verifier
    from ashat.transparency.log_signer import LogSigner

    if key:
        path = Path(key)
        try:
            return Verifier.parse(path.read_text("utf-8") if "+" not in key and path.is_file() else key)
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{path} cannot be read as a verifier key.") from None
    found = LogSigner(home(), origin).verifier()
    if found is None:
        raise UsageError(f"Nothing here ever signed {origin}: give --key VKEY, the line that its keeper hands out.")
    return found


def _report(
    auditor: Auditor, origin: str, signed: Checkpoint | None, older: Checkpoint | None, verifier: Verifier | None
) -> dict[str, Any]:
    return {
        "origin": origin,
        "events": auditor.size,
        "deployments": auditor.deployments,
        "documents": len(auditor.documents),
        "root": base64.b64encode(auditor.root).decode("ascii"),
        "checkpoint": _told(signed) if signed else None,
        "since": _told(older) if older else None,
        "signed_by": f"{verifier.name}+{verifier.key_id.hex()}" if verifier else None,
    }


def _approvals(approvals: Approvals, where: str) -> dict[str, Any]:
    roots = {
        target: {"version": root.version, "sha256": root.digest, "from": "the one given" if root.given else where}
        for target, root in approvals.anchors.items()
    }
    return {"approvals": approvals.signed, "roots": roots, "unchecked": approvals.unchecked}


def _root(path: Path) -> bytes:
    from ashat.common.files import read_bounded

    try:
        return read_bounded(path, _ROOT_BYTES)
    except OSError as error:
        raise UsageError(f"The root {path} cannot be read: {error.strerror}.") from None


def _told(found: Checkpoint) -> dict[str, Any]:
    return {"size": found.size, "root": base64.b64encode(found.root).decode("ascii")}


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    signed, older = report["checkpoint"], report["since"]
    counts = f"{report['deployments']} deployments, {report['documents']} documents"
    rows = [("Events", f"{report['events']}, of {counts}"), ("Root", report["root"])]
    if signed:
        rows.append(("Checkpoint", f"the first {_events(signed['size'])}, signed by {report['signed_by']}"))
    else:
        rows.append(("Checkpoint", "none that was signed is here: deploy audit checkpoint"))
    if older:
        rows.append(("Since", f"the first {_events(older['size'])} are what they were"))
    rows.append(("Approvals", f"{report['approvals']}, each signed by enough of those who may"))
    for target, root in report["roots"].items():
        rows.append(("Root", f"{target} version {root['version']}, {root['from']}, sha256 {root['sha256']}"))
    rows += [("Unchecked", line) for line in report["unchecked"]]
    return rows


def _events(number: int) -> str:
    return f"{number} event{'' if number == 1 else 's'}"
