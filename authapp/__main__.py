"""The console script `authapp`, also as `python -m authapp`: operations without a WSGI module.

Settings come from the environment.
"""

import click
from flask import Flask
from flask.cli import ScriptInfo

from authapp import Config, create_app
from authapp.cli.tree import COMMANDS, CommandTree

authapp = CommandTree(
    "authapp",
    commands=COMMANDS,
    help="Operate authapp. Settings come from the environment, as the servers read them.",
)


@authapp.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--stop-with-parent", is_flag=True, hidden=True)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def dev(context: click.Context, command: tuple[str, ...], stop_with_parent: bool) -> None:
    """Start PostgreSQL and Valkey under DATA_DIR (var), and run COMMAND with their addresses.

    COMMAND gets DATABASE_URL, REDIS_URL and the secrets in its environment. Without COMMAND the
    database is migrated, the first administrator is made, and authapp is served. Everything stops
    when COMMAND ends. A server whose URL is set already is used as it is.
    """
    from authapp.dev import launcher  # noqa: PLC0415 — for development only

    context.exit(launcher.main(command, with_parent=stop_with_parent))


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    authapp.main(prog_name="authapp", obj=ScriptInfo(create_app=_app))


def _app() -> Flask:
    return create_app(Config.from_env())


if __name__ == "__main__":
    main()
