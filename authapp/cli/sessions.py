"""`sessions`: sessions, by person."""

from uuid import UUID

import click

from authapp.accounts.actor import OPERATOR
from authapp.accounts.visible_text import shown
from authapp.cli.deployment import pass_services
from authapp.cli.users import existing_user
from authapp.services import Services
from authapp.sessions.records import EndReason
from authapp.sessions.user_agents import device_name


@click.group("sessions")
def session_commands() -> None:
    """Sessions, by person."""


@session_commands.command("list")
@click.argument("email")
@pass_services
def list_(services: Services, email: str) -> None:
    """Show the live sessions of EMAIL, the most recently seen first."""
    for session in services.sessions.of_user(existing_user(services, email).id):
        click.echo(
            f"{session.id}  {session.kind}  {device_name(session.user_agent)}  "
            f"{shown(session.address) or '-'}  seen {session.last_seen_at:%Y-%m-%d %H:%M}Z"
        )


@session_commands.command()
@click.argument("email")
@click.argument("session_id", type=click.UUID, required=False)
@pass_services
def revoke(services: Services, email: str, session_id: UUID | None) -> None:
    """End one session of EMAIL, or all of them."""
    user = existing_user(services, email)
    if session_id is None:
        ended = services.administration.end_sessions_of(user.id, OPERATOR).value
    else:
        why = EndReason.REVOKED_BY_ADMIN
        ended = int(services.sessions.end_one(user.id, session_id, why, OPERATOR).value)
    click.echo(f"Ended {ended} session{'' if ended == 1 else 's'}.")
