"""Whether a record is what was appended, and what was signed. Pure, no I/O.

An `Auditor` is given the events of a log in order, each after the documents that it is the first to name, and stops
at the first that does not fit: its place, the tree's root with it, its form, the state machine, its documents. What it
has seen is then held against checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from ashat.common.canonical_json import canonical_json, digest_of, is_digest
from ashat.deployment.events import AnyEvent, event_from_json
from ashat.deployment.state_machine import State, apply, start
from ashat.errors import AuditError, CheckpointError, SessionError, TrustError
from ashat.ledger.index import index_row
from ashat.ledger.leaf import LogRow, Record
from ashat.transparency.checkpoint import Checkpoint
from ashat.transparency.merkle import CompactRange, leaf_hash
from ashat.transparency.witness import require_extends

# The fields of an event that name a document by its digest, and what people call it.
_NAMES_A_DOCUMENT = {
    "evidence": "evidence",
    "shown": "what the gate showed",
    "proposal": "what was signed",
    "attestation": "a statement of provenance",
    "sbom": "what the release is built from",
    "rollout_policy": "the rollout policy that the gate showed",
}


class Document(NamedTuple):
    """A document that the next event names."""

    content: Any


def with_documents(records: Iterable[Record], text_of: Callable[[str], str | None]) -> Iterator[Record | Document]:
    """Put before each of `records` those of its documents that none before it named; `text_of` gives the JSON of a
    digest.

    A document that is not there, or is no JSON any more, is left out: the auditor misses it.
    """
    given: set[str] = set()
    for record in records:
        for digest in _documents_of(record.body):
            text = None if digest in given else text_of(digest)
            if text is not None:
                given.add(digest)
                try:
                    yield Document(json.loads(text))
                except (ValueError, RecursionError):
                    continue
        yield record


class Follower(Protocol):
    """What looks closer at the events of a log, such as `ashat.audit.approvals.Approvals`."""

    def document(self, digest: str, content: Any) -> None:
        """Take a document that the next event names."""

    def event(self, record: Record, event: AnyEvent, state: State, root_at: Callable[[int], bytes]) -> None:
        """Take the next event; `state` is its deployment's once it happened, `root_at` gives the tree's root by size.

        Raises:
            AuditError, TrustError: it does not fit; the message says why.
        """


class Auditor:
    """Checks a log from its first event on.

    `expected` are leaf hashes known from elsewhere, to name the event that is another since. Without `documents` they
    are not asked for; without `stories` neither they nor what an event says. `appended` is how many events the log
    said it had before the first was read; more may follow. `begun` is the tree of the events before the first that it
    is given, whose stories it cannot know. `follower` is shown each event that fits so far.
    """

    def __init__(
        self,
        *,
        expected: Sequence[bytes] = (),
        documents: bool = True,
        stories: bool = True,
        appended: int = 0,
        begun: CompactRange | None = None,
        follower: Follower | None = None,
    ) -> None:
        self.hashes: list[bytes] = []
        self.documents: set[str] = set()
        self._expected = expected
        self.asks_for_documents = documents
        self._asks_for_stories = stories
        self._appended = appended
        self._follower = follower
        self._tree = begun or CompactRange()
        self._begun = self._tree.size
        self._roots = [self._tree.root()]
        self._states: dict[tuple[str, int], State] = {}
        self._before: dict[tuple[str, int], int] = {}
        self._fresh: set[str] = set()
        self._last: Record | None = None

    @property
    def size(self) -> int:
        """How many events the log has, as far as it was read."""
        return self._tree.size

    @property
    def deployments(self) -> int:
        """How many attempts these events are of."""
        return len(self._states)

    @property
    def root(self) -> bytes:
        """The root of the tree over them."""
        return self._roots[-1]

    @property
    def tree(self) -> CompactRange:
        """What has to be kept of the tree to read on from here."""
        return CompactRange(self._tree.size, self._tree.nodes)

    @property
    def last(self) -> str:
        """The name of the last event, for messages."""
        return f"event {self.size} ({self._last.name})" if self._last else "nothing"

    def begin_after(self, known: Record | None) -> None:
        """Check that the event before the first is where the tree ended that the auditor began with.

        Raises:
            AuditError: it is gone, or the tree was another one.
        """
        if known is None or known.seq != self.size - 1:
            raise AuditError(
                f"Event {self.size} is missing: a checkpoint covers {self.size}, and the log is shorter.",
                event=self.size,
            )
        if known.root != self.root.hex():
            raise AuditError(
                f"The log was rewritten or forked: its first {self.size} events are not those that it had."
            )
        self._last = known

    def check(self, item: Record | Document) -> None:
        """Take the next event, or a document that it names.

        Raises:
            AuditError: it does not fit; the message and the attributes name it.
        """
        if isinstance(item, Document):
            digest = _digest(item.content)
            self._fresh.add(digest)
            if self._follower is not None:
                self._follower.document(digest, item.content)
            return
        self._check_place(item)
        if self._asks_for_stories:
            event = _decoded(item)
            self._check_story(item, event)
            self._check_documents(item)
            self._show(item, event)
        self._last = item

    def end(self) -> None:
        """Check that nothing is missing, as no event follows.

        Raises:
            AuditError: some are missing, or there is more than events.
        """
        if self.size < self._appended:
            raise AuditError(
                f"Event {self.size + 1} is missing: {self._appended} were appended, and the log ends with {self.last}.",
                event=self.size + 1,
            )
        if self._fresh:
            raise AuditError(f"After {self.last} comes a document that no event names.", event=self.size + 1)

    def check_head(self, head: LogRow) -> None:
        """Check that the tree which the log grows from (`Ledger.log_row`, read before the first event) is that of its
        events.

        Raises:
            AuditError: it is another; appending to it would fork the log.
        """
        at = head.size - self._begun
        try:
            tree = CompactRange.parse(head.size, head.frontier)
            fits = 0 <= at < len(self._roots) and (tree.root(), tree.text) == (self._roots[at], head.frontier)
        except (ValueError, TypeError):
            fits = False
        if not fits:
            raise AuditError(f"The tree that the log grows from is not that of its first {head.size} events.")

    def check_list(self, listed: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """Check that the list of deployments (`Ledger.listed`, read before the first event) is what the events say.

        Another version may have written a summary, so fields that only one of the two has are not compared.

        Raises:
            AuditError: it says otherwise; the message names the deployment.
        """
        for key in sorted(listed.keys() | self._before.keys()):
            state, found = self._states.get(key), listed.get(key)
            if state is None or found is None:
                raise _mislisted(key, None, "only one of the two has it")
            version = found["version"]
            if not isinstance(version, int) or not self._before.get(key, 0) <= version <= state.version:
                raise _mislisted(key, state, f"it is at version {version} there")
            field = _difference(found, index_row(state)) if version == state.version else None
            if field:
                raise _mislisted(key, state, f"its {field} is another there")

    def require_extends(self, checkpoint: Checkpoint, *, whole: bool = False) -> None:
        """Check that the log begins with the events of `checkpoint`, or with `whole`, is exactly those.

        Raises:
            AuditError: it is not; the message names the event, where one can be named.
        """
        now, at = Checkpoint(checkpoint.origin, self.size, self.root), checkpoint.size - self._begun
        # Each event's root was seen to be that of the tree which ends with it.
        require_extends(
            now,
            checkpoint,
            lambda: at >= 0 and self._roots[at] == checkpoint.root,
            log=f"The log, which ends with {self.last},",
        )
        if whole and checkpoint.size < self.size:
            raise AuditError(
                f"Event {checkpoint.size + 1} does not fit: the checkpoint covers {checkpoint.size} only.",
                event=checkpoint.size + 1,
            )

    def _show(self, record: Record, event: AnyEvent) -> None:
        if self._follower is not None:
            state = self._states[record.update_id, record.attempt]
            try:
                self._follower.event(record, event, state, self._roots.__getitem__)
            except (AuditError, TrustError) as error:
                raise _misfit(record, record.seq, str(error)) from None

    def _check_place(self, record: Record) -> None:
        if record.seq != self.size:
            raise _misfit(record, self.size, f"its place is {record.seq + 1}, and {self.size + 1} was due")
        try:
            leaf = leaf_hash(record.leaf)
        except ValueError:
            raise _misfit(record, self.size, "its text is no Unicode") from None
        if self.size < len(self._expected) and leaf != self._expected[self.size]:
            raise _misfit(record, self.size, "the older export holds another event in its place")
        self._tree.append(leaf)
        root = self._tree.root()
        if root.hex() != record.root:
            raise _misfit(record, self.size - 1, "what it says, or where it stands, is not what was appended")
        self._roots.append(root)
        self.hashes.append(leaf)

    def _check_story(self, record: Record, event: AnyEvent) -> None:
        key, at = (record.update_id, record.attempt), record.seq
        state = self._states.get(key)
        if record.version != (state.version if state else 0) + 1:
            raise _misfit(record, at, f"version {(state.version if state else 0) + 1} was due")
        if state is None and record.attempt != 1:
            before = self._states.get((record.update_id, record.attempt - 1))
            if before is None or not before.may_be_pushed_again:
                raise _misfit(record, at, "no attempt came before it after which another may follow")
        try:
            self._states[key] = apply(state or start(*key), event)
        except SessionError as error:
            raise _misfit(record, at, f"nothing of that kind may happen there: {error}") from None
        if at < self._appended:
            self._before[key] = record.version

    def _check_documents(self, record: Record) -> None:
        named = _documents_of(record.body)
        for digest, what in named.items():
            if self.asks_for_documents and digest not in self._fresh | self.documents:
                raise _misfit(record, record.seq, f"{what}, {digest[:12]}…, is missing or was altered")
        if self._fresh - named.keys():
            raise _misfit(record, record.seq, "before it comes a document that it does not name")
        self.documents |= self._fresh
        self._fresh = set()


def check_origin(checkpoint: Checkpoint, origin: str, what: str) -> None:
    """Check that `checkpoint` is of the log of that name.

    Raises:
        CheckpointError: it is of another.
    """
    if checkpoint.origin != origin:
        raise CheckpointError(f"{what} is of another log: {checkpoint.origin}, not {origin}.")


def _decoded(record: Record) -> AnyEvent:
    try:
        canonical = canonical_json(json.loads(record.leaf)) == record.leaf
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise _misfit(record, record.seq, "it is not canonical JSON")
    try:
        return event_from_json(record.body)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise _misfit(record, record.seq, f"this version knows no such event ({reason}); a newer one may") from None


def _documents_of(body: str) -> dict[str, str]:
    """Find the digests of the documents that an event names, and what each is called."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(event, dict):
        return {}
    return {event[field]: what for field, what in _NAMES_A_DOCUMENT.items() if is_digest(event.get(field))}


def _digest(content: Any) -> str:
    try:
        return digest_of(content)
    except (ValueError, RecursionError):
        return ""


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Find the first field that two rows of the list both have, and have different; None where none is. Their
    summaries, in JSON, are compared field by field."""
    columns = next((name for name in sorted(here) if name != "summary" and there[name] != here[name]), None)
    if columns:
        return columns
    try:
        listed, folded = json.loads(there["summary"]), json.loads(here["summary"])
        both, unknown = sorted(listed.keys() & folded.keys()), sorted(listed.keys() - folded.keys())
        if unknown and folded.keys() - listed.keys():
            return f"field {unknown[0]!r}"  # a newer version adds fields, an older one lacks some: neither does both
        return next((field for field in both if listed[field] != folded[field]), None)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return "summary"


def _mislisted(key: tuple[str, int], state: State | None, why: str) -> AuditError:
    update_id, attempt = key
    return AuditError(
        f"The list that deploy status shows is not what the events say of {update_id} attempt {attempt}: {why}.",
        update_id=update_id,
        attempt=attempt,
        version=state.version if state else None,
    )


def _misfit(record: Record, at: int, why: str) -> AuditError:
    return AuditError(
        f"Event {at + 1} ({record.name}) does not fit: {why.rstrip('.')}.",
        event=at + 1,
        update_id=record.update_id,
        attempt=record.attempt,
        version=record.version,
    )
