"""The `deploy` command: its words, and how it ends.

Exit codes: 0 done; 1 refused or failed, with one line that says why and what to do next; 2 the words were wrong; 3 not
every Mainframe took it; 4 the time ran out; 130 interrupted. `ASHAT_DEBUG=1` adds the traceback of anything unexpected.
"""

from __future__ import annotations

import os
import sys
import traceback
from functools import cache
from typing import Annotated, Any

import typer
from typer.main import get_command

from ashat.cli.commands import (
    approve,
    audit,
    backup,
    cancel_rollback,
    carry,
    completion,
    configure,
    doctor,
    evidence,
    fleet,
    heal,
    inbox,
    init,
    licences,
    logs,
    metrics,
    notify,
    open_page,
    public,
    push_verify,
    receipt,
    rollout,
    sbom,
    schedule,
    servers,
    sign,
    stats,
    status_history,
    team,
    tracker,
    up_down,
    wait,
    windows,
)
from ashat.cli.terminal import output
from ashat.cli.trust import ceremonies, machine_keys, setup, status
from ashat.common.shortage import shortage
from ashat.errors import AshatError
from ashat.ledger.opening import one_ledger

INTERRUPTED = 130
BROKEN_PIPE = 141

app = typer.Typer(
    name="deploy",
    help="Ship a release from ALPHA to the Public Server, verify it, stop for a person, then to OMEGA and Mainframes.",
    epilog="A first release: deploy configure public <url> <name>, deploy push UPD-1 'What it brings', "
    "deploy verify UPD-1, deploy approve UPD-1.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback(invoke_without_command=True)
def _deploy(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from ashat import __version__

        output.say(f"ashat-deploy {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        output.write(context.get_help())


app.command("init", short_help="Write a first raos.toml for a tree.")(init.init)
app.command("push", short_help="Pack a tree and let the Public Server run it.")(push_verify.push)
app.command("verify", short_help="Run every check on the Public Server.")(push_verify.verify)
app.command("approve", short_help="Decide, and watch it go to OMEGA and the Mainframes.")(approve.approve)
app.command("rollback", short_help="Let every server run again what it ran before.")(cancel_rollback.rollback)
app.command("sign", short_help="Sign what awaits approval, on an approver's machine.")(sign.sign)
app.command("cancel", short_help="Call an update off before it is approved.")(cancel_rollback.cancel)
app.command("status", short_help="What is under way, awaits approval, or ended last.")(status_history.status)
app.command("inbox", short_help="What waits for a person, and who can answer it.")(inbox.inbox)
app.command("history", short_help="Every deployment, or everything about one.")(status_history.history)
app.command("stats", short_help="How often, how fast, how many fail, how soon mended.")(stats.stats)
app.command("metrics", short_help="The record's figures, for Prometheus.")(metrics.metrics)
app.command("wait", short_help="Wait until an update awaits approval, is decided, or ended.")(wait.wait)
app.command("open", short_help="Open an update's run, or its evidence, in the browser.")(open_page.open_page)
app.command("evidence", short_help="What the last verification saw.")(evidence.evidence)
app.command("sbom", short_help="What a release is built from.")(sbom.sbom)
app.add_typer(audit.audit_app, name="audit", short_help="Prove that the record is what it was.")
app.command("receipt", short_help="Write one file that shows a customer who approved what.")(receipt.receipt)
app.command("export", short_help="Write a release into a file for a Mainframe without a network.")(carry.export)
app.command("import-report", short_help="Give OMEGA the report of a release that was carried.")(carry.import_report)
app.add_typer(rollout.rollout_app, name="rollout", short_help="How a release goes out, wave after wave.")
app.add_typer(fleet.fleet_app, name="fleet", short_help="The Mainframes, and what each runs.")
app.add_typer(licences.licences_app, name="licences", short_help="Who may ask OMEGA for releases, until when.")
app.command("servers", short_help="What each server and Mainframe runs now.")(servers.servers)
app.command("doctor", short_help="What is wrong here, and at the servers; what to do.")(doctor.doctor)
app.command("logs", short_help="What the program of a server wrote last.")(logs.logs)
app.command("heal", short_help="Bring back what a server's store lost.")(heal.heal)
app.add_typer(notify.notify_app, name="notify", short_help="Say by which channels people are told.")
app.add_typer(tracker.tracker_app, name="tracker", short_help="Say which trackers hear of their tasks.")
app.add_typer(schedule.schedule_app, name="schedule", short_help="Say when a source is released by itself.")
app.add_typer(windows.window_app, name="window", short_help="Say when a release may go to a server.")
app.add_typer(windows.freeze_app, name="freeze", short_help="Say when no release may go to a server.")
app.add_typer(public.public_app, name="public", short_help="Put the Public Server right.")
app.add_typer(configure.configure_app, name="configure", short_help="Say where a server, or a source tree, is.")
app.add_typer(setup.trust_app, name="trust", short_help="Say who approves, and by which keys.")
setup.trust_app.command("status", short_help="Who approves, who has signed, until when.")(status.status)
setup.trust_app.command("builder-key", short_help="This machine's public key for what it pushes.")(
    machine_keys.builder_key
)
setup.trust_app.command("verifier-key", short_help="This machine's public key for what it verifies.")(
    machine_keys.verifier_key
)
setup.trust_app.command("add-approver", short_help="Let more people approve.")(ceremonies.add_approver)
setup.trust_app.command("remove-approver", short_help="Let somebody approve no more.")(ceremonies.remove_approver)
setup.trust_app.command("rotate", short_help="Replace a key: an approver's, or OMEGA's own.")(ceremonies.rotate)
setup.trust_app.command("machines", short_help="Say anew which machines build and verify.")(ceremonies.machines)
setup.trust_app.command("renew", short_help="Let root and targets hold for longer.")(ceremonies.renew)
setup.trust_app.command("publish", short_help="Give OMEGA what enough have signed.")(ceremonies.publish)
setup.trust_app.command("abandon", short_help="Give a change up.")(ceremonies.abandon)
app.command("backup", short_help="Write this home and its ledger into one file.")(backup.backup)
app.command("restore", short_help="Put a backup into an empty home.")(backup.restore)
app.command("up", short_help="Run the control plane.")(up_down.up)
app.command("down", short_help="Stop the control plane.")(up_down.down)
app.command("ui", short_help="Open Prefect's UI, signed in.")(up_down.ui)
app.command("completion", short_help="Print what completes these words in your shell.")(completion.completion)
app.add_typer(team.team_app, name="team", short_help="Run the control plane for a team.")
app.command("worker", short_help="Run a worker for one pool.")(up_down.worker)


@app.command(
    "demo",
    short_help="The whole path on this machine, for real.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def _demo(context: typer.Context) -> None:
    """Show the whole path on this machine: ALPHA, Public, OMEGA and two Mainframes, for real."""
    from ashat.cli.demo.demo import demo_command

    demo = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    demo.command()(demo_command)
    raise typer.Exit(_code(demo(args=context.args, prog_name="deploy demo", standalone_mode=False, obj=run)))


@app.command("help")
def _help(
    context: typer.Context,
    command: Annotated[list[str] | None, typer.Argument(help="The command to explain.")] = None,
) -> None:
    """Explain deploy, or one of its commands."""
    raise typer.Exit(_deploy_with([*(command or []), "--help"]))


def main() -> None:
    """Run `deploy` with this process's arguments, and end the process with its exit code."""
    output.prepare_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `deploy` with `arguments`; its exit code. Every error becomes a line on stderr."""
    try:
        code = _deploy_with(arguments)
        if code == INTERRUPTED:  # as Typer answers a Ctrl-C that nobody met
            raise KeyboardInterrupt
        output.flush()
        return code
    except output.PipeClosedError:
        return _nobody_listens()
    except AshatError as error:
        return _end(error.lines(), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "deploy"
        return _end(f"{error.format_message().rstrip('.')}. See: {command} --help", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _end("Interrupted.", INTERRUPTED)
    except Exception as error:  # noqa: BLE001  the last line of defence: one line, and how to see more
        if type(error).__module__.partition(".")[0] in ("httpx", "httpcore"):
            # A node's failures are NodeErrors: what is left is Prefect's client.
            return _end(f"Prefect stopped answering ({type(error).__name__}): is it up? deploy up starts it.", 1)
        if lack := shortage(error):
            return _end(str(lack), 1)
        return _end(
            f"Unexpected {type(error).__name__}: {str(error).strip() or 'no more is known'}. "
            "This is a fault of deploy itself; ASHAT_DEBUG=1 shows where.",
            1,
        )


def _deploy_with(arguments: list[str]) -> int:
    with one_ledger():
        return _code(commands()(args=arguments, prog_name="deploy", standalone_mode=False))


@cache
def commands() -> Any:
    """Every command, made once: calling the `app` itself would make all of them each time."""
    return completion.prepare(get_command(app))


def _end(told: str | list[str], code: int) -> int:
    if os.environ.get("ASHAT_DEBUG"):
        traceback.print_exc()
    try:
        output.flush()
        first, *others = [told] if isinstance(told, str) else told
        output.note(f"❌ {first}")
        for line in others:
            output.note(line)
    except output.PipeClosedError:
        return _nobody_listens()
    return code


def _nobody_listens() -> int:
    """Keep Python from complaining when it flushes what nobody reads."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return BROKEN_PIPE


def _code(result: object) -> int:
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
