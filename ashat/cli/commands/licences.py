"""Implement `deploy licences`: who may ask an OMEGA for releases, and until when.

A key is made here, and OMEGA keeps its hash: it is written to a new file of mode 0600, or printed once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.ages import parse_age
from ashat.cli.control_plane.omega import Omega, open_omega
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.common.files import create_file, read_bounded
from ashat.common.identifiers import check_licence_key, licence_id, new_key
from ashat.errors import NodeAuthError, NodeConflictError, NodeError, NodeRefusedError, UsageError, WrongRoleError

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.protocol.licences import LicenceRow, LicenceState

licences_app = typer.Typer(no_args_is_help=True, help="The licences by which Mainframes ask an OMEGA for releases.")
Named = Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")]
Expires = Annotated[
    str, typer.Option(help="The last day on which it counts (2027-12-31, in UTC), or a time.", show_default="no end")
]
_NAMED = 5
MARKS = {"active": "✅", "expired": "⏳", "revoked": "🚫"}


@licences_app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose install it is, such as a customer.")],
    expires: Expires = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the key to this new file, mode 0600, instead of stdout.")
    ] = None,
    old_protocol: Annotated[
        bool, typer.Option("--old-protocol", help="For an install that checks no signature (see docs/node.md).")
    ] = False,
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Make a licence, and print its key, which is shown only now."""
    from ashat.protocol.licences import LicenceRequest, check_licence_name, parse_expiry

    until = parse_expiry(expires) if expires else None
    name, key = check_licence_name(name), new_key()
    with _keeping(omega, dry_run=dry_run) as node:
        if dry_run:
            alike = [each.id for each in node.licences() if each.name == name]
            warned = f"{node.name} has a licence of that name already: {', '.join(alike[:_NAMED])}" if alike else ""
            would(f"make a licence for {name} on {node.name}, {_until(until)}", _kept_in(out), warned)
            return
        if out is not None:
            _write_key(out, key)
        try:
            node.put_licence(LicenceRequest(key=key, name=name, expires=until, old_protocol=old_protocol or None))
        except (NodeAuthError, NodeRefusedError, NodeConflictError, WrongRoleError):
            if out is not None:
                out.unlink(missing_ok=True)
            raise
        except NodeError as error:
            error.add_note(
                f"Whether it keeps the licence is not known: deploy licences show {licence_id(key)}. If it does not, "
                f"{f'remove {out} and ' if out else ''}create another."
            )
            raise
    output.note(f"🔑 Licence {licence_id(key)} for {name}, {_until(until)}. Keep the key: it is not shown again.")
    if out is None:
        output.say(key)


@licences_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Lines of KEY,NAME[,EXPIRES] as CSV; - reads stdin.")],
    omega: Omega = "",
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Keep licences that exist, or renew those that OMEGA keeps: all of them or none."""
    from ashat.protocol.licences import LicenceRequest

    rows = _read(file)
    with _keeping(omega, dry_run=dry_run) as node:
        if dry_run:
            known = {each.id: each for each in node.licences()}
            would(f"keep {len(rows)} licences on {node.name}", *(_imported(row, known) for row in rows))
            return
        kept = node.put_licences([LicenceRequest(key=row.key, name=row.name, expires=row.expires) for row in rows])
    if as_json:
        output.show_json({"licences": [each.model_dump(mode="json") for each in kept]})
        return
    for line in output.columns(
        (MARKS[each.status], each.id, each.name, _until(each.expires), "new" if each.new else "renewed")
        if each.status != "revoked"
        else (MARKS[each.status], each.id, each.name, "revoked before, and stays so", "")
        for each in kept
    ):
        output.say(line)


@licences_app.command("list")
def list_(
    status: Annotated[str, typer.Option(help="Only those that are active, expired or revoked.")] = "",
    expiring: Annotated[str, typer.Option(metavar="AGE", help="Only those that end within that time: 12h, 30d.")] = "",
    omega: Omega = "",
    as_json: Json = False,
) -> None:
    """List the licences, by name; never a key."""
    if status and status not in MARKS:
        raise UsageError(f"--status takes one of {', '.join(MARKS)}; not {status[:40]!r}.")
    before = output.now() + parse_age(expiring, "--expiring") if expiring else None
    with _asking(omega) as node:
        found = node.licences()
    chosen = [
        each
        for each in found
        if (not status or each.status == status)
        and (before is None or (each.status == "active" and each.expires is not None and each.expires <= before))
    ]
    if as_json:
        output.show_json({"licences": [each.model_dump(mode="json") for each in chosen], "all": len(found)})
        return
    for line in output.columns((MARKS[each.status], each.id, each.name, _standing(each)) for each in chosen):
        output.say(line)
    output.say(f"{len(chosen)} of {len(found)} licences" if found else "There is no licence: deploy licences create")


@licences_app.command()
def show(name: Named, omega: Omega = "", as_json: Json = False) -> None:
    """Show one licence, and what its Mainframe does."""
    with _asking(omega) as node:
        found = _find(node, name)
        mainframe = next((each for each in node.mainframes() if each.id == found.id), None)
    if as_json:
        told = mainframe.model_dump(mode="json") if mainframe else None
        output.show_json({**found.model_dump(mode="json"), "mainframe": told})
        return
    output.say(f"{MARKS[found.status]} {found.name} ({found.id}): {_standing(found)}")
    output.say(f"  made {found.created_at:%Y-%m-%d %H:%M} UTC")
    if found.old_protocol:
        output.say("  UNVERIFIED: its install may ask by the old protocol, and checks no signature")
    seen = mainframe.last_seen if mainframe else None
    output.say(f"  its Mainframe was {f'seen {output.span(output.now() - seen)} ago' if seen else 'never seen'}")
    output.say(f"  what it runs: deploy fleet show {found.id}")


@licences_app.command()
def renew(
    name: Named,
    expires: Expires = "",
    no_end: Annotated[bool, typer.Option("--no-end", help="It counts without an end.")] = False,
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Have a licence end at another time; its key stays the same."""
    from ashat.protocol.licences import parse_expiry

    if bool(expires) == no_end:
        raise UsageError("Say until when it counts, --expires 2027-12-31, or --no-end.")
    until = parse_expiry(expires) if expires else None
    with _keeping(omega, dry_run=dry_run) as node:
        found = _find(node, name)
        if dry_run:
            would(f"let the licence {found.id} of {found.name} count {_until(until)}", f"now: {_standing(found)}")
            return
        found = node.renew_licence(found.id, until)
    output.say(f"{MARKS[found.status]} {found.name} ({found.id}): {_standing(found)}")


@licences_app.command()
def revoke(
    name: Named,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nobody.")] = False,
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Honour a licence no more, for good: nothing is offered to it from now on. What runs there keeps running."""
    with _keeping(omega, dry_run=dry_run) as node:
        found = _find(node, name)
        if dry_run:
            would(f"revoke the licence {found.id} of {found.name} for good", f"now: {_standing(found)}")
            return
        if not yes and not _confirmed(found):
            output.say("Nothing was revoked.")
            return
        node.revoke_licence(found.id)
    output.say(f"🚫 The licence {found.id} of {found.name} is revoked. What runs there keeps running.")


def _confirmed(found: LicenceState) -> bool:
    if not output.interactive():
        raise UsageError(f"A licence is revoked for good. Say --yes to revoke {found.id} ({found.name}).")
    return typer.confirm(f"Revoke {found.id} ({output.clean(found.name)}) for good?", default=False)


@contextmanager
def _asking(omega: str, *, dry_run: bool = False) -> Iterator[NodeClient]:
    """Open that OMEGA.

    Raises:
        UsageError: it is of a version that answers no such calls.
    """
    with open_omega(omega, dry_run=dry_run) as node:
        try:
            yield node
        except NodeRefusedError as error:
            if error.status != 405:
                raise
            raise UsageError(
                f"{node.name} is of an earlier version: upgrade it, or use ashat-node licence on its machine."
            ) from None


@contextmanager
def _keeping(omega: str, *, dry_run: bool) -> Iterator[NodeClient]:
    """Open that OMEGA to change its licences; say how its token may, where it may not."""
    with _asking(omega, dry_run=dry_run) as node:
        try:
            yield node
        except NodeAuthError as error:
            if error.status == 403:
                error.add_note(
                    "On OMEGA: ashat-node token add --scope push --scope promote --scope licences; here: deploy "
                    "configure omega with that token. Or use ashat-node licence on OMEGA's machine."
                )
            raise


def _find(node: NodeClient, name: str) -> LicenceState:
    """Find the licence with that name, or id.

    Raises:
        UsageError: there is none, several have that name, or it is a key.
    """
    if _is_key(name):
        raise UsageError(
            f"That is a licence's key, which others on this machine may have seen as an argument. Name it by its id, "
            f"{licence_id(name)}, and give it away no more."
        )
    found = [each for each in node.licences() if name in (each.id, each.name)]
    if not found:
        raise UsageError(f"{node.name} has no licence {name[:80]!r}: deploy licences list shows all.")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found[:10])
        raise UsageError(f"{node.name} has {len(found)} licences called {name[:80]!r}; say which by its id: {ids}.")
    return found[0]


def _is_key(text: str) -> bool:
    try:
        return bool(check_licence_key(text))
    except UsageError:
        return False


def _write_key(out: Path, key: str) -> None:
    try:
        create_file(out, f"{key}\n".encode())
    except FileExistsError:
        raise UsageError(f"{out} is there already; give --out a new file.") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.") from None


def _read(file: Path) -> list[LicenceRow]:
    from ashat.protocol.licences import FILE_LIMIT, parse_licences

    try:
        stdin = str(file) == "-"
        content = sys.stdin.buffer.read(FILE_LIMIT + 1) if stdin else read_bounded(file, FILE_LIMIT)
        if len(content) > FILE_LIMIT:
            raise UsageError(f"A file of licences has at most {FILE_LIMIT} bytes.")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text in UTF-8. Nothing was kept.") from None
    return parse_licences(io.StringIO(text, newline=""))


def _standing(found: LicenceState) -> str:
    if found.revoked_at is not None:
        return f"revoked {found.revoked_at:%Y-%m-%d %H:%M} UTC"
    if found.expires is None:
        return "without an end"
    left = found.expires - output.now()
    said = f"in {output.span(left)}" if left > timedelta() else f"{output.span(-left)} ago"
    return f"{'ended' if found.status == 'expired' else 'ends'} {found.expires:%Y-%m-%d %H:%M} UTC, {said}"


def _kept_in(out: Path | None) -> str:
    """Say where a new key would be put.

    Raises:
        UsageError: it could not be, since the file is there.
    """
    if out is None:
        return "and print its key, which would be shown only then"
    if out.exists():
        raise UsageError(f"{out} is there already; give --out a new file.")
    return f"and write its key to {out}"


def _imported(row: LicenceRow, known: dict[str, LicenceState]) -> str:
    """Say what would become of a row of the file."""
    identity = licence_id(row.key)
    before = known.get(identity)
    became = "new" if before is None else "revoked before, and stays so" if before.revoked_at else "renewed"
    return f"{identity}  {row.name}  {_until(row.expires)}  {became}"


def _until(expires: datetime | None) -> str:
    return f"until {expires:%Y-%m-%d %H:%M} UTC" if expires else "without an end"
