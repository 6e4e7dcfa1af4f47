"""`invitations`: links by which people may sign up."""

from uuid import UUID

import click

from authapp.accounts.invitations import DEFAULT_DAYS, MAX_DAYS, InvitationView
from authapp.accounts.visible_text import shown
from authapp.cli.deployment import pass_services
from authapp.services import Services


@click.group("invitations")
def invitation_commands() -> None:
    """Links by which people may sign up."""


@invitation_commands.command()
@click.argument("email", default="")
@click.option("--role", "roles", multiple=True, help="May be repeated; `user` if left out.")
@click.option(
    "--days",
    type=click.IntRange(1, MAX_DAYS),
    default=DEFAULT_DAYS,
    show_default=True,
    help="How long it counts.",
)
@pass_services
def create(services: Services, email: str, roles: tuple[str, ...], days: int) -> None:
    """Invite one person, whatever SIGNUP says; with EMAIL, nobody but the person who has it.

    With EMAIL and MAIL_URL the invitation is mailed; else its link is printed once.
    """
    made = services.invitations.create(email, roles, days)
    click.echo(_line(made.invitation))
    if not made.token:
        click.echo(f"Mailed to {made.invitation.email}.")
        return
    link = services.public_link(f"/signup/{made.token}")
    click.echo(f"Link, shown only now: {link}")
    if link.startswith("/"):
        click.echo("Put the address of this service in front, or set PUBLIC_URL.")


@invitation_commands.command("list")
@pass_services
def list_(services: Services) -> None:
    """Show the newest invitations."""
    for invitation in services.invitations.newest():
        click.echo(_line(invitation))


@invitation_commands.command()
@click.argument("invitation_id", metavar="ID", type=click.UUID)
@pass_services
def revoke(services: Services, invitation_id: UUID) -> None:
    """Make the invitation ID void."""
    if not services.invitations.revoke(invitation_id):
        raise click.ClickException("there is no such open invitation")
    click.echo("Revoked.")


def _line(invitation: InvitationView) -> str:
    until = f"{invitation.expires_at:%Y-%m-%d %H:%M} UTC"
    roles = ",".join(invitation.roles)
    return shown(
        f"{invitation.id}  {invitation.email or '-'}  {roles}  until {until}  {invitation.state}"
    )
