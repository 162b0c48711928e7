"""`ashat-node`: the agent of a server, and what its operator does about it there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ashat.common.files import replace_file
from ashat.common.shell_completion import is_asked, script
from ashat.common.shortage import shortage
from ashat.common.text import printable, printable_json
from ashat.errors import AshatError, UsageError
from ashat.node.access.tokens import TokenFile
from ashat.node.cli.flags import settings_from, with_a_flag_for_each_setting
from ashat.node.cli.licences import licence_app, trust_keys
from ashat.node.cli.logs import journal_app
from ashat.node.cli.record import Config, Data, data_of
from ashat.node.cli.secret_output import Out, say_where, secret_output
from ashat.node.cli.tokens import token_app
from ashat.node.core.config import NodeConfig
from ashat.protocol.messages import Role, Scope

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(token_app, name="token")
app.add_typer(licence_app, name="licence")
app.add_typer(journal_app, name="journal")
app.command("trust-keys")(trust_keys)

# What Typer raises at wrong words; the class is Click's, which some versions of Typer hold inside.
_MISTAKES: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_FIRST_SCOPES = {
    Role.PUBLIC: (Scope.PUSH,),
    Role.OMEGA: (Scope.PUSH, Scope.PROMOTE),
    Role.MAINFRAME: (Scope.READ,),
}


@app.callback(invoke_without_command=True)
def _ashat_node(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from ashat import __version__

        typer.echo(f"ashat-node {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run `ashat-node` with this process's arguments, and end the process with its exit code."""
    is_asked("ashat-node")
    sys.exit(run(app))


def run(command: typer.Typer) -> int:
    """Run a command with this process's arguments; its exit code. A user's mistake is one line on standard error."""
    try:
        code = command(standalone_mode=False)
    except AshatError as error:
        _complain(str(error))
        code = error.exit_code
    except _MISTAKES as error:
        _complain(error.format_message())
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        lack = shortage(error)
        if lack is None:
            raise
        _complain(str(lack))
        code = 1
    return code or 0


@app.command()
@with_a_flag_for_each_setting
def serve(config: Config = None, **flags: Any) -> None:
    """Serve, until SIGTERM. Flags win over ASHAT_NODE_* settings, and these over the file."""
    from ashat.node.serve import serve as run

    run(NodeConfig.load(config, **settings_from(flags)))


@app.command()
def init(
    role: Annotated[Role, typer.Option("--role", help="What this node is.")],
    data: Annotated[Path, typer.Option("--data", help="The directory that holds everything the node keeps.")],
    name: Annotated[str | None, typer.Option(help="What others call this node.")] = None,
    host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to serve on; 0 picks a free one.")] = 8470,
    omega: Annotated[str, typer.Option(help="OMEGA's URL, for a Mainframe.")] = "",
    out: Out = None,
) -> None:
    """Write a first configuration, and print the token that opens the node, once."""
    from ashat.node.cli.template import first_config

    path = data / "node.toml"
    if path.exists():
        raise UsageError(f"{path} is there already; edit it, or give another --data.")
    if role is Role.MAINFRAME and not omega:
        raise UsageError("A mainframe asks OMEGA: give its address with --omega URL.")
    tokens = TokenFile(data / "tokens.json")
    with secret_output(out) as write:
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = first_config(role=role, name=name or str(role), host=host, port=port, omega=omega)
            replace_file(path, content.encode(), mode=0o600)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
        _, secret = tokens.add("first", _FIRST_SCOPES[role])
        typer.echo(f"Written: {path}. Say in its [app] how the program is started, then:", err=True)
        typer.echo(f"  ashat-node serve --config {path}", err=True)
        scopes = ", ".join(_FIRST_SCOPES[role])
        typer.echo(f"Its token ({scopes}){say_where(out)}", err=True)
        write(secret)


@app.command()
def status(
    config: Config = None,
    data: Data = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until it serves, such as after its start.", min=0, max=3600)
    ] = 0,
) -> None:
    """Say whether the node of that data directory serves, and what it runs by its record. Exit code 1: it does not."""
    from ashat.node.cli.status import describe, wait_until_it_serves

    directory = data_of(config, data)
    wait_until_it_serves(directory, wait)
    serves, lines = describe(directory)
    typer.echo("\n".join(map(printable, lines)))
    if not serves:
        raise typer.Exit(1)


@app.command()
def check(
    config: Config = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Look for what would keep the node from working, and say what to do. Exit code 1: something is wrong."""
    from ashat.common import findings
    from ashat.node.cli.check import check as look

    found = look(config, data)
    if as_json:
        typer.echo(printable_json(json.dumps(findings.as_json(found), indent=2, ensure_ascii=False)))
    else:
        typer.echo("\n".join(map(printable, findings.lines(found))))
    if findings.is_wrong(found):
        raise typer.Exit(1)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print what makes a shell complete these commands; in ~/.bashrc: eval "$(ashat-node completion bash)"."""
    typer.echo(script("ashat-node", shell))


@app.command("verify-receipt")
def verify_receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What deploy receipt wrote.")],
    root: Annotated[Path, typer.Option("--root", metavar="FILE", help="The root.json that came with the installer.")],
    log_key: Annotated[
        str,
        typer.Option(metavar="VKEY", help="The log's verifier key, or a file with it; else the one that was signed."),
    ] = "",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="A release directory to hold against it.")
    ] = None,
) -> None:
    """Check a receipt, without a network, and say what it proves. Exit code 1: something in it does not fit."""
    from ashat.node.cli.receipts import verify_receipt as verify

    for line in verify(file, root, log_key, bundle):
        typer.echo(printable(line))


@app.command("forget-log")
def forget_log(config: Config = None, data: Data = None) -> None:
    """Give up what OMEGA or a Mainframe knows of the ledger's log, after the ledger was lost: for good."""
    from ashat.node.cli.forget import forget_log as forget

    forget(data_of(config, data))
    typer.echo("Forgotten. The next signed release begins the log anew: what it held before is vouched for no more.")


@app.command("forget-journal")
def forget_journal(config: Config = None, data: Data = None) -> None:
    """Give up what a Mainframe remembers of OMEGA's journal of changes, after OMEGA was built anew: for good."""
    from ashat.node.cli.forget import forget_change_log as forget

    forget(data_of(config, data))
    typer.echo("Forgotten. The journal that OMEGA shows next is remembered as it comes: nothing vouches for it.")


@app.command()
def updates(config: Config = None, data: Data = None) -> None:
    """Show what OMEGA offers a Mainframe that is not installed yet, and what it waits for."""
    from ashat.node.cli.updates import describe_waiting

    typer.echo(describe_waiting(data_of(config, data)))


@app.command()
def install(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update, as `ashat-node updates` shows it.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Let a Mainframe whose settings say install = "ask" install an update that waits."""
    from ashat.node.cli.updates import allow

    typer.echo(allow(data_of(config, data), update_id))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What deploy export wrote for this Mainframe.")],
    config: Config = None,
    data: Data = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Where to write the report for OMEGA.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0, max=86_400)] = 600,
) -> None:
    """Install a release that was carried to a Mainframe by hand, without a network, with every check of the wire.

    The node has to serve. Exit code 1: it was refused, or does not run; what ran before keeps running.
    """
    from ashat.node.cli.imports import import_file

    typer.echo(printable(import_file(data_of(config, data), file, report, wait, typer.echo)))


@app.command("import-report")
def import_report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Write what came of the last import of a Mainframe, for deploy import-report."""
    from ashat.node.cli.imports import write_report

    typer.echo(printable(write_report(data_of(config, data), file)))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file, on another disk than the data.")],
    config: Config = None,
    data: Data = None,
    without_secrets: Annotated[bool, typer.Option("--without-secrets", help="Leave out private keys.")] = False,
) -> None:
    """Write the node's own records into one file, mode 0600, whether or not it serves."""
    from ashat.node.cli.backup import NOT_IN_IT, back_up_node

    header = back_up_node(data_of(config, data), file, with_secrets=not without_secrets)
    typer.echo(f"Written: {file}, {len(header.files)} files. Not in it: {NOT_IN_IT}.")
    if header.secrets:
        typer.echo("Secrets are in it, unencrypted: the keys that sign for this node. Keep it like a key.", err=True)
    else:
        typer.echo("No private key is in it: the node makes new ones, which others have to be told.", err=True)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `ashat-node backup` wrote.")],
    data: Annotated[Path, typer.Option("--data", help="The directory, new or empty, that is to hold it.")],
) -> None:
    """Put a backup into an empty directory. Nothing is overwritten."""
    from ashat.node.cli.backup import restore_node

    header = restore_node(data, file)
    typer.echo(printable(f"Restored: {data}, as of {header.made_at:%Y-%m-%d %H:%M:%S} UTC, {len(header.files)} files."))
    bundle = str(header.facts.get("bundle") or "")
    if bundle:
        typer.echo(printable(f"It ran bundle {bundle[:12]}, which is not in the backup: deploy heal brings it back."))


@app.command()
def settings() -> None:
    """List every setting, its default and what it is for."""
    from ashat.node.cli.flags import settings_table

    for line in settings_table():
        typer.echo(line)


def _complain(text: str) -> None:
    for line in text.split("\n"):
        typer.echo(f"ashat-node: {printable(line)}", err=True)
