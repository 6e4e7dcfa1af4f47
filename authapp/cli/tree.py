"""The command tree, put together; the same for `flask auth …` and for `authapp …`."""

from typing import Any

import click
from flask import Flask

from authapp.cli.audit import audit_commands
from authapp.cli.database import database_commands
from authapp.cli.deployment import Deployment, remember_deployment
from authapp.cli.doctor import doctor_command
from authapp.cli.invitations import invitation_commands
from authapp.cli.mail import mail_commands
from authapp.cli.maintenance import maintenance_command
from authapp.cli.roles import role_commands
from authapp.cli.sessions import session_commands
from authapp.cli.users import user_commands
from authapp.errors import AuthappError

COMMANDS: tuple[click.Command, ...] = (
    database_commands,
    user_commands,
    role_commands,
    session_commands,
    invitation_commands,
    audit_commands,
    mail_commands,
    maintenance_command,
    doctor_command,
)


class CommandTree(click.Group):
    """A group in which each of our errors ends a command with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AuthappError as error:
            raise click.ClickException(str(error)) from None


auth = CommandTree(
    "auth", commands=COMMANDS, help="Accounts, sessions and the stores that keep them."
)


def register_commands(app: Flask, deployment: Deployment) -> None:
    """Adds `flask auth …` to an app."""
    remember_deployment(app, deployment)
    app.cli.add_command(auth)
