"""A change of who signs what: the next root and targets, planned, put into words, signed and counted. Pure.

What a person signs is told from the metadata itself, never from what its maker says of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from ashat.common.canonical_json import canonical_json
from ashat.common.documents import load_json
from ashat.common.numbers import in_utc
from ashat.errors import KeyPolicyError, MalformedMetadataError, MixAndMatchError, RolledBackError
from ashat.trust.keys.files import name_of
from ashat.trust.tuf.metadata import (
    PRODUCTION,
    Holders,
    Lifetimes,
    Roles,
    Signatures,
    build_production,
    build_root,
    build_targets,
    parse,
    sign_once,
    signatures_of,
    target_of,
    verify,
)

MAX_BYTES: Final = 4 * 1024 * 1024
_FORMAT: Final = "ashat-change/1"


def with_added(people: Holders, keys: Sequence[Key], threshold: int | None) -> Holders:
    """Add the holders of `keys` to `people`; it takes as many as before, or `threshold`."""
    return Holders([*people.keys, *keys], threshold or people.threshold)


def without(people: Holders, name: str, threshold: int | None) -> Holders:
    """Remove the one called `name` from `people`; it takes as many as before, or `threshold`.

    Raises:
        KeyPolicyError: nobody is called that, or too few would be left.
    """
    _check_known(people, name)
    left = [key for key in people.keys if name_of(key) != name]
    wanted = threshold or people.threshold
    if wanted > len(left):
        raise KeyPolicyError(
            f"It takes {people.threshold} to approve, and without {name} there are {len(left)}: give --threshold, or "
            "add an approver first."
        )
    return Holders(left, wanted)


def with_key(people: Holders, key: Key) -> Holders:
    """Give one of `people`, after whom `key` is named, that key from now on.

    Raises:
        KeyPolicyError: nobody is called that, or has that key already.
    """
    name = name_of(key)
    _check_known(people, name)
    if any(key.keyid == known.keyid for known in people.keys):
        raise KeyPolicyError(f"The key {key.keyid[:12]} is one that approves already; give {name}'s new one.")
    return Holders([key if name_of(known) == name else known for known in people.keys], people.threshold)


@dataclass(frozen=True)
class Change:
    """What comes after a root and targets. `production` is the last approval signed anew, after `replaces`, where those
    who signed that would no longer be enough. `planned` is when, by its maker's clock; None: not said."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    production: Metadata[Targets] | None = None
    replaces: Metadata[Targets] | None = None
    planned: datetime | None = field(default=None, compare=False)

    @classmethod
    def plan(
        cls,
        root: Metadata[Root],
        targets: Metadata[Targets],
        production: bytes | None,
        roles: Roles,
        *,
        lifetimes: Lifetimes,
        now: datetime,
        target: str = "",
    ) -> Change:
        """Plan what follows on `root` and `targets` for `roles` to hold; `production` is what OMEGA serves. It is of
        the same OMEGA, which is called `target` where they do not say so yet.

        Raises:
            KeyPolicyError: the roles would protect less than they say; see `check_holders`.
            MalformedMetadataError: `production` cannot be read.
        """
        target = target_of(root.signed) or target_of(targets.signed) or target
        version = root.signed.version + 1
        new_root = build_root(roles, lifetime=lifetimes.root, now=now, version=version, target=target)
        version = targets.signed.version + 1
        new_targets = build_targets(roles, lifetime=lifetimes.targets, now=now, version=version, target=target)
        if production is None:
            return cls(new_root, new_targets, planned=now)
        current = parse(production, Targets, "OMEGA's production.json")
        if signatures_of(new_targets.signed, PRODUCTION, current).complete:
            return cls(new_root, new_targets, planned=now)
        again = build_production(current, None, lifetime=lifetimes.production, now=now)
        return cls(new_root, new_targets, again, current, planned=now)

    def to_bytes(self) -> bytes:
        """Write it as it is kept, and carried from one person to the next."""
        added = {"production": self.production, "replaces": self.replaces}
        optional = {name: part.to_bytes().decode() if part else None for name, part in added.items()}
        always = {"root": self.root.to_bytes().decode(), "targets": self.targets.to_bytes().decode()}
        planned = {"planned": self.planned.isoformat(timespec="seconds")} if self.planned else {}
        return canonical_json({"format": _FORMAT, **always, **optional, **planned})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Change:
        """Read what `to_bytes` wrote, not verified.

        Raises:
            MalformedMetadataError: it did not.
        """
        try:
            content: dict[str, Any] = load_json(raw, limit=MAX_BYTES)
            if content["format"] != _FORMAT:
                raise MalformedMetadataError("The change is of another version's format: bring both up to date.")
            production, replaces = (
                parse(content[name].encode(), Targets, name) if content[name] else None for name in _ADDED
            )
            root = parse(content["root"].encode(), Root, "The change's root")
            targets = parse(content["targets"].encode(), Targets, "The change's targets")
            planned = in_utc(datetime.fromisoformat(content["planned"])) if "planned" in content else None
            return cls(root, targets, production, replaces, planned)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise MalformedMetadataError("The change that is to be signed is not as this version writes it.") from None

    def taken(self, root: Root) -> bool:
        """Tell whether `root` is the one of this change: it is in force here."""
        return root == self.root.signed

    def check(self, root: Root, targets: Targets) -> None:
        """Check that it follows on `root` and `targets`, and releases nothing that they did not.

        Raises:
            RolledBackError: it does not follow.
            MixAndMatchError: it changes more than who signs.
            UnsignedError: it says that something was approved that was not.
        """
        if self.root.signed.version != root.version + 1 or self.targets.signed.version <= targets.version:
            raise RolledBackError(
                f"The change is to root version {self.root.signed.version}, and version {root.version} is in force "
                "here: deploy trust abandon, and plan it again."
            )
        self._check_form()
        self._check_target(root, targets)
        if self.production is None:
            return
        if self.replaces is None:
            raise MixAndMatchError("The change does not say which approval it would replace; nothing was signed.")
        verify(targets, PRODUCTION, self.replaces)
        before, after = self.replaces.signed, self.production.signed
        if (after.targets, after.delegations, after.version) != (before.targets, None, before.version + 1):
            raise MixAndMatchError("The change would release something else than what is released; nothing was signed.")

    def _check_target(self, root: Root, targets: Targets) -> None:
        """Check that both are of one OMEGA, and of the same as before, once that was said."""
        after = {target_of(self.root.signed), target_of(self.targets.signed)}
        before = {target_of(root), target_of(targets)} - {""}
        if len(after) > 1 or not before <= after:
            names = ", ".join(sorted(name[:80] or "none" for name in after))
            raise MixAndMatchError(
                f"The change is to the root or targets of another OMEGA ({names}); nothing was signed."
            )

    def _check_form(self) -> None:
        """Check that it says who holds the roles and nothing else: only that is put into words."""
        root, targets = self.root.signed, self.targets.signed
        roles, name = Roles.of(root, targets), target_of(targets)
        plain_root = build_root(roles, lifetime=0, now=root.expires, version=root.version, target=target_of(root))
        plain_targets = build_targets(roles, lifetime=0, now=targets.expires, version=targets.version, target=name)
        if (root, targets) != (plain_root.signed, plain_targets.signed):
            raise MixAndMatchError("The change holds more than who signs what; nothing was signed.")

    def counts(self, root: Root) -> dict[str, Signatures]:
        """Count who has signed each part, and who has yet to, where `root` is in force; by the part's name.

        Raises:
            KeyPolicyError, MalformedMetadataError: it is no good; see `check_delegation`.
        """
        new = self.root.signed
        found = {"root": signatures_of(new, Root.type, self.root)}
        if not self.taken(root) and root.roles[Root.type] != new.roles[Root.type]:
            before = signatures_of(root, Root.type, self.root)
            found = {"root, by those who hold it now": before, "root, by those who then do": found["root"]}
        found["targets"] = signatures_of(new, Targets.type, self.targets)
        if self.production is not None:
            found["last approval"] = signatures_of(self.targets.signed, PRODUCTION, self.production)
        return found

    def complete(self, root: Root) -> bool:
        """Tell whether enough have signed every part."""
        return all(found.complete for found in self.counts(root).values())

    def sign(self, root: Root, signer: Signer) -> bool:
        """Add the signatures of one key to every part that it may sign, where `root` is in force, and say whether
        there is such a part; again changes nothing.

        Raises:
            UnsignedError: the key does not sign.
        """
        new, targets = self.root.signed, self.targets.signed
        held = [
            sign_once(root, Root.type, self.root, signer) or sign_once(new, Root.type, self.root, signer),
            sign_once(new, Targets.type, self.targets, signer),
            self.production is not None and sign_once(targets, PRODUCTION, self.production, signer),
        ]
        return any(held)

    def differences(self, root: Root, targets: Targets) -> list[str]:
        """Describe what becomes otherwise, a line each."""
        before, after = Roles.of(root, targets), Roles.of(self.root.signed, self.targets.signed)
        offline = {
            "root": (before.root, after.root),
            "targets": (before.targets, after.targets),
            "releases": (before.approvers, after.approvers),
        }
        roles_by_line: dict[str, list[str]] = {}
        for tell in (_otherwise_held, _otherwise_counted):
            for name, (old, new) in offline.items():
                for line in tell(old, new):
                    roles_by_line.setdefault(line, []).append(name)
        # Who may sign all three is an approver; anything else is said role by role.
        lines = [
            line if len(names) == len(offline) else f"{', '.join(names)}: {line}"
            for line, names in roles_by_line.items()
        ]
        lines += [f"what is built: {line}" for line in _differences(before.builders, after.builders)]
        lines += [f"what is verified: {line}" for line in _differences(before.verifiers, after.verifiers)]
        if _online(root) != _online(self.root.signed):
            lines.append("OMEGA says by new keys of its own what is current; the old ones count no more")
        if target_of(root) != target_of(self.root.signed):
            lines.append(f"both say from then on that they are of {target_of(self.root.signed)}, and of no other OMEGA")
        if self.production is not None:
            lines.append("the last approval is signed anew, unchanged; the rollback signed with it counts no more")
        ends = [f"{part.signed.expires:%Y-%m-%d}" for part in (self.root, self.targets)]
        return [*lines, f"root holds until {ends[0]}, targets until {ends[1]}"]


_ADDED: Final = ("production", "replaces")


def _check_known(people: Holders, name: str) -> None:
    names = sorted(name_of(key) for key in people.keys)
    if name not in names:
        raise KeyPolicyError(f"Nobody who approves is called {name[:80]!r}: they are {', '.join(names)}.")


def _online(root: Root) -> list[set[str]]:
    return [set(root.roles[role].keyids) for role in (Snapshot.type, Timestamp.type)]


def _differences(before: Sequence[Key], after: Sequence[Key]) -> list[str]:
    old, new = ({key.keyid: name_of(key) for key in keys} for keys in (before, after))
    came = {keyid: name for keyid, name in new.items() if keyid not in old}
    went = {keyid: name for keyid, name in old.items() if keyid not in new}
    lines = []
    for keyid, name in came.items():
        verb = "signs by another key from then on" if name in went.values() else "signs, too"
        lines.append(f"{name} {verb} ({keyid[:12]})")
    return lines + [f"{name} signs no more ({keyid[:12]})" for keyid, name in went.items() if name not in came.values()]


def _otherwise_held(before: Holders, after: Holders) -> list[str]:
    return _differences(before.keys, after.keys)


def _otherwise_counted(before: Holders, after: Holders) -> list[str]:
    counts = [(holders.threshold, len(holders.keys)) for holders in (before, after)]
    if counts[0] == counts[1]:
        return []
    return [f"it takes {counts[1][0]} of {counts[1][1]}, instead of {counts[0][0]} of {counts[0][1]}"]
