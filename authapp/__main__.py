"""The console script `authapp`, also as `python -m authapp`: operations without a WSGI module.

Settings come from the environment.
"""

from flask import Flask
from flask.cli import ScriptInfo

from authapp import Config, create_app
from authapp.cli.tree import COMMANDS, CommandTree

authapp = CommandTree(
    "authapp",
    commands=COMMANDS,
    help="Operate authapp. Settings come from the environment, as the servers read them.",
)


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    authapp.main(prog_name="authapp", obj=ScriptInfo(create_app=_app))


def _app() -> Flask:
    return create_app(Config.from_env())


if __name__ == "__main__":
    main()
