"""`sessions`: sessions, by person."""

import sys
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
@click.argument("email", required=False)
@click.argument("session_id", type=click.UUID, required=False)
@click.option("--all", "of_everybody", is_flag=True, help="End the sessions of everybody.")
@click.option("--yes", is_flag=True, help="With --all, at a terminal: do not ask.")
@pass_services
def revoke(
    services: Services,
    email: str | None,
    session_id: UUID | None,
    of_everybody: bool,
    yes: bool,
) -> None:
    """End one session of EMAIL, all of them, or with --all those of everybody."""
    if of_everybody is (email is not None):
        raise click.UsageError("Name an EMAIL, or use --all for everybody.")
    if email is None:
        _revoke_all(services, yes=yes)
        return
    user = existing_user(services, email)
    if session_id is None:
        ended = services.administration.end_sessions_of(user.id, OPERATOR).value
    else:
        why = EndReason.REVOKED_BY_ADMIN
        ended = int(services.sessions.end_one(user.id, session_id, why, OPERATOR).value)
    click.echo(f"Ended {ended} session{'' if ended == 1 else 's'}.")


def _revoke_all(services: Services, *, yes: bool) -> None:
    if not yes and sys.stdin.isatty():  # a script can't answer, and --all says enough
        click.confirm("Sign everybody out, on every device?", abort=True)
    ended = services.administration.end_sessions_of_everybody(OPERATOR)
    click.echo("Everybody is signed out.")
    if not ended.everywhere:
        click.echo(f"Other instances follow within {services.revalidate_seconds} seconds.")
