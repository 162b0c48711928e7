"""`ashat-node verify-receipt`: a receipt held against a root, on any machine and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

from ashat.common.files import read_bounded
from ashat.common.text import printable
from ashat.deployment.events import Event, FreezeOverridden, Promoted
from ashat.errors import AshatError, ReceiptError, UsageError
from ashat.protocol.origins import compared_in_words
from ashat.receipts.receipt import LIMIT, VerifiedReceipt, approvals, prove


def verify_receipt(file: Path, root: Path, log_key: str = "", bundle: Path | None = None) -> Iterator[str]:
    """Say, in lines, what the receipt in `file` proves. `bundle` is a directory that is held against it, too.

    `log_key` is a verifier key, or a file that holds one.

    Raises:
        ReceiptError: something does not fit.
        UsageError: a file cannot be read.
    """
    key = _read(Path(log_key)).decode("utf-8", "replace") if log_key and "+" not in log_key else log_key
    proved = prove(_read(file), _read(root), key)
    if bundle is not None:
        _check_bundle(bundle, proved.document.bundle)
    return _lines(proved, bundle)


def _check_bundle(directory: Path, digest: str) -> None:
    from ashat.bundle.pack import pack_directory

    try:
        with pack_directory(directory, windows_names=False) as packed:
            found = packed.manifest.digest
            before = packed.manifest.without_directories().digest
    except AshatError as error:
        raise ReceiptError(f"{directory} is not what was approved: {error}") from None
    if digest not in (found, before):
        raise ReceiptError(
            f"{directory} is not what was approved: it makes the bundle {found}, and {digest} was signed."
        )


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, LIMIT)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _lines(proved: VerifiedReceipt, bundle: Path | None) -> Iterator[str]:
    document, evidence = proved.document, proved.evidence
    yield (
        f"{document.update_id} (attempt {document.attempt}) was approved for {document.target}, channel "
        f"{document.channel}, as release_seq {document.release_seq}. Everything fits."
    )
    held = f"{bundle} is exactly that" if bundle else "no files were held against it: --bundle DIR"
    yield f"  Bytes     bundle {document.bundle}; {held}"
    checks = evidence.get("checks")
    count = len(checks) if isinstance(checks, list) else 0
    yield f"  Evidence  {document.evidence}: {printable(str(evidence.get('outcome')))}, {count} checks"
    if proved.origin is not None:
        source = proved.origin.parameters
        commit = f", commit {printable(source.commit)}" if source.commit else ""
        commit = f", {printable(str(source.artifact))}" if source.artifact else commit
        compared = printable(compared_in_words(source.dirty, source.differences)) if source.commit else ""
        yield f"  Built     by {proved.origin.builder} from {printable(source.source)}{commit}{compared}"
    for name, keyid in proved.approvers:
        yield f"  Signed    {name}, key {keyid}"
    yield f"  Needed    {proved.threshold} of those who may approve"
    if proved.one_person:
        yield (
            "  One-person mode: the key lay on the machine that deploys, without a passphrase. Whoever can read that "
            "machine's files can sign; it does not show who approved, and nobody had to agree with them."
        )
    for answer in approvals([event for _, event in proved.events]):
        comment = f": {printable(answer.comment)}" if answer.comment else ""
        yield f"  Answered  {printable(answer.approver) or 'by somebody unnamed'}, {_time(answer)}{comment}"
    for event in (event for _, event in proved.events if isinstance(event, FreezeOverridden)):
        closed = f" (although {printable(event.closed)})" if event.closed else ""
        yield f"  Freeze    overridden by {printable(event.by)}, {_time(event)}: {printable(event.reason)}{closed}"
    promoted = next((event for _, event in proved.events if isinstance(event, Promoted)), None)
    if promoted is not None:
        yield f"  Promoted  {document.target} runs it since {_time(promoted)}, the record says"
    if proved.mainframe is not None:
        found = proved.mainframe
        why = f": {printable(found.reason)}" if found.reason else ""
        yield f"  Mainframe {printable(found.name)} ({printable(found.id)}): {found.result}{why}, the record says"
    places = ", ".join(str(index + 1) for index, _ in proved.events)
    yield f"  Log       events {places} of {proved.checkpoint.size} of {printable(proved.checkpoint.origin)}"


def _time(event: Event) -> str:
    return f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
