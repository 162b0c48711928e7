"""The question that a person is put at the gate, as Markdown: what changes, what is loosened, and what the checks saw.

Text that comes from a release is escaped in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ashat.bundle.manifest import BundleDiff, diff
from ashat.deployment.approval_rules import TAIL
from ashat.deployment.state_machine import State
from ashat.protocol.messages import NodeState, ReleaseSignature
from ashat.raos_toml.compare import weakened_policy
from ashat.settings import Settings
from ashat.trust.authority.authority import one_person_words
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.provenance import verify_provenance
from blocks.policy import load_policy
from blocks.server import load_server
from tasks.approval.signing import wants_four_eyes
from tasks.runtime.artifacts import escape, markdown_table
from tasks.runtime.ledger import ledger
from tasks.verify.promises import promises_of, taken_back
from tasks.verify.verification import MARKS

_FILES_SHOWN = 40
_NO_WAY_BACK = "- No way back is signed with it: what runs now has no evidence, or no provenance that counts"
_WAY_BACK_ASKED = "- No way back is signed with it, as the policy has it: a rollback waits for people to sign"


def running(seen: NodeState | None) -> str | None:
    """The bundle that a server runs; None where it runs nothing or was not seen."""
    return seen.current.bundle if seen and seen.current else None


def compose(state: State, seen: NodeState | None, missing: str, proposal: Proposal | None = None) -> str:
    """The gate's page, over a target that is as `seen`, or that cannot be asked because of `missing`; and who is to
    sign `proposal`."""
    asked_again = state.gate.reason if state.gate else ""
    lines = [f"# May {escape(state.update_id)} go to {escape(state.target)}?", ""]
    if asked_again:
        lines += [f"> ⚠️ **Asked again:** {escape(asked_again)}", ""]
    if missing:
        lines += [f"> ❌ **It cannot be approved yet:** {escape(missing)}", ""]
    lines += [*_facts(state, seen), ""]
    if seen is not None:
        changes = [*_ancestry(state, seen), *_policy(state, seen), *_changes(state, running(seen))]
        lines += ["## What changes", "", *changes, ""]
    evidence = state.evidence or ""
    signing = _signatures(state, proposal, running(seen)) if proposal else [] if missing else one_person(state)
    lines += [
        *_checks(state),
        "",
        *signing,
        "## Evidence",
        "",
        f"`{evidence[:32]}` `{evidence[32:]}`",
        "",
        f"To decide, type its last {TAIL} characters: **`{evidence[-TAIL:]}`**.",
    ]
    return "\n".join(lines)


def _facts(state: State, seen: NodeState | None) -> list[str]:
    source, target = state.source, escape(state.target)
    origin = "from a tree outside git"
    if source and source.commit:
        origin = f"from commit `{source.commit[:12]}`" + (" **with uncommitted changes**" if source.dirty else "")
    served = f"{target} and {reach(state)}" if seen else f"{target}; how many Mainframes, it does not say"
    lines = [f"**{escape(state.description)}**", ""] if state.description.strip() else []
    lines += [escape(state.info), ""] if state.info.strip() else []
    lines += [
        f"- Pushed by {escape(state.pushed_by)}, {origin}",
        f"- Version {escape(state.bundle_version)}, bundle `{(state.bundle or '')[:12]}`",
        f"- Will reach {served}",
    ]
    lines += [f"- Open until {state.gate.expires:%Y-%m-%d %H:%M} UTC"] if state.gate else []
    return lines


def _signatures(state: State, proposal: Proposal, target_bundle: str | None) -> list[str]:
    lines = []
    if wants_four_eyes(state):
        lines.append(f"- Four eyes: {escape(state.pushed_by)} pushed it, and does not count")
    if proposal.way_back is None and target_bundle is not None:
        lines.append(_NO_WAY_BACK if load_policy(state.policy).signs_way_back else _WAY_BACK_ASKED)
    return signed_by(state.update_id, proposal, state.gate.signatures if state.gate else (), lines)


def signed_by(
    update_id: str, proposal: Proposal, signatures: Sequence[ReleaseSignature], more: Sequence[str] = ()
) -> list[str]:
    """Who has signed `proposal`, who is missing, and how they sign; and `more` lines."""
    name, back = escape(update_id), proposal.way_back
    way = f", and the way back to {escape(back.document.update_id)}" if back else ""
    return [
        "## Signatures",
        "",
        f"- Signed by {escape(str(proposal.count(signatures)))}",
        *_machines(proposal),
        f"- Each signs this release{way}, on their own machine: `deploy approve {name} --key FILE.pem`, or what "
        f"`deploy sign {name} --key FILE.pem` prints goes into the field Signature",
        *more,
        "",
    ]


def _machines(proposal: Proposal) -> list[str]:
    draft = proposal.release
    provenance = draft.provenance.encode() if draft.provenance is not None else None
    proven = verify_provenance(proposal.targets.signed, draft.document, provenance)
    if proven is None:
        return []
    checked = f", verified on {escape(proven.verifier)}" if proven.verifier else ""
    return [f"- Built on {escape(proven.builder)}{checked}, as their keys prove"]


def one_person(state: State) -> list[str]:
    """That nobody signs but the one key here, and what that does not protect; nothing where people sign."""
    words = one_person_words(Settings().ensure_home(), state.target)
    return ["## Signatures", "", *(f"- {line}" for line in words), ""] if words else []


def reach(state: State) -> str:
    """How many Mainframes the target serves, in words."""
    with load_server(state.target).client() as target:
        count = sum(1 for mainframe in target.mainframes() if mainframe.status == "active")
    return f"{count} Licensed Mainframe" + ("" if count == 1 else "s")


def _checks(state: State) -> list[str]:
    lines = ["## Checks", ""]
    if state.outcome == "attention":
        lines += ["> ⚠️ **Not every check passed cleanly.** Approving needs a comment that says why.", ""]
    return lines + [f"- {MARKS[c.outcome]} **{escape(c.title)}**: {escape(c.seen)}" for c in state.checks]


def _policy(state: State, seen: NodeState) -> list[str]:
    """What the verification policy asks less than when what the target runs was verified."""
    current = seen.current
    with ledger() as record:
        ran = record.find(current.update_id, current.attempt) if current else None
        if ran is None or ran.evidence is None or state.evidence is None:
            return []
        before, ours = (record.document(evidence).get("policy") for evidence in (ran.evidence, state.evidence))
    lines = weakened_policy(before, ours) if before and ours else []
    if not lines:
        return []
    told = [f"> - {escape(line)}" for line in lines]
    return ["> ⚠️ **The verification policy asks less than when that was verified:**", ">", *told, ""]


def _ancestry(state: State, seen: NodeState) -> list[str]:
    if seen.current is None:
        return [f"{escape(state.target)} runs nothing yet: everything is new.", ""]
    current = seen.current
    with ledger() as record:
        running = record.find(current.update_id, current.attempt)
    theirs = running.source.commit if running and running.source else None
    ours = state.source
    if theirs and ours and (theirs == ours.commit or theirs in ours.contains):
        return []
    return [
        f"> ⚠️ **{escape(state.target)} runs {escape(current.update_id)}, whose commit is not known to be an ancestor "
        "of this one: what it brought may be undone. Read the removed and changed files below.**",
        "",
    ]


def _changes(state: State, target_bundle: str | None) -> list[str]:
    """The difference against what the target runs, and what of its promises the release takes back."""
    if state.bundle is None:
        return ["Nothing was packed."]
    with load_server(state.public).client() as public:
        new = public.manifest(state.bundle)
        promised = promises_of(public, new)
    if target_bundle is None:
        return [difference(diff(None, new))]
    with load_server(state.target).client() as target:
        old = target.manifest(target_bundle)
        before = promises_of(target, old)
    return [*_loosened(taken_back(before, promised, old, new)), difference(diff(old, new))]


def _loosened(lines: list[str]) -> list[str]:
    if not lines:
        return []
    told = [f"> - {escape(line)}" for line in lines]
    return ["> ⚠️ **This release loosens what it is held to:**", ">", *told, ""]


def difference(found: BundleDiff) -> str:
    """What changes, by module and by file, as Markdown."""
    if found.empty:
        return "Nothing: the target runs these bytes already."
    modules = [
        (escape(name) or "(outside modules)", str(n["added"]), str(n["removed"]), str(n["changed"]))
        for name, n in found.by_module().items()
    ]
    files = [
        *(("removed", path) for path in found.removed),
        *(("changed", path) for path in found.changed),
        *(("mode changed", path) for path in found.mode_changed),
        *(("added", path) for path in found.added),
    ]
    page = markdown_table(("module", "added", "removed", "changed"), modules) + "\n\n"
    page += "\n".join(f"- **{kind}** {escape(path)}" for kind, path in files[:_FILES_SHOWN])
    if len(files) > _FILES_SHOWN:
        page += f"\n\n… and {len(files) - _FILES_SHOWN} files more."
    return page
