"""`users`: people who can log in."""

import secrets
import sys

import click

from authapp.accounts.actor import OPERATOR
from authapp.accounts.identity import ADMIN, USER, Identity
from authapp.accounts.visible_text import shown
from authapp.authentication.recovery import one_time_passwords
from authapp.authentication.recovery.reset_links import RESET_MINUTES
from authapp.cli.deployment import pass_services
from authapp.cli.user_import import import_command
from authapp.errors import UnknownUser
from authapp.services import Services

FIRST_ADMIN = "admin@authapp.internal"


@click.group("users")
def user_commands() -> None:
    """People who can log in."""


user_commands.add_command(import_command)


@user_commands.command()
@click.argument("email")
@click.option("--name", default="", help="What the person is called.")
@click.option("--role", "roles", multiple=True, help="May be repeated; `user` if left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--verified/--unverified",
    default=True,
    help="Whether you know that the email is the person's, which is the default.",
)
@pass_services
def create(
    services: Services,
    email: str,
    name: str,
    roles: tuple[str, ...],
    password_stdin: bool,
    verified: bool,
) -> None:
    """Add a user; without --password-stdin a one-time password is made up and printed once."""
    password, generated = _password(password_stdin)
    services.registration.sign_up(
        email, password, name, roles or (USER,), is_one_time=generated, verified=verified
    )
    click.echo(f"Created {email}.")
    _tell(password, generated)


@user_commands.command("list")
@pass_services
def list_(services: Services) -> None:
    """Show all users, newest first."""
    cursor = None
    while True:
        page = services.users.page(cursor, limit=200)
        for user in page.users:
            click.echo(_line(user))
        if (cursor := page.next_cursor) is None:
            return


@user_commands.command()
@click.argument("email")
@pass_services
def show(services: Services, email: str) -> None:
    """Show one user."""
    click.echo(_line(existing_user(services, email)))


@user_commands.command()
@click.argument("email")
@click.argument("role")
@pass_services
def grant(services: Services, email: str, role: str) -> None:
    """Give EMAIL a ROLE."""
    user = existing_user(services, email)
    click.echo(_line(services.administration.grant_role(user.id, role, OPERATOR).value))


@user_commands.command()
@click.argument("email")
@click.argument("role")
@pass_services
def revoke(services: Services, email: str, role: str) -> None:
    """Take a ROLE from EMAIL."""
    user = existing_user(services, email)
    click.echo(_line(services.administration.revoke_role(user.id, role, OPERATOR).value))


@user_commands.command()
@click.argument("email")
@pass_services
def activate(services: Services, email: str) -> None:
    """Let EMAIL log in again."""
    user = existing_user(services, email)
    click.echo(
        _line(services.administration.set_active(user.id, active=True, actor=OPERATOR).value)
    )


@user_commands.command()
@click.argument("email")
@pass_services
def deactivate(services: Services, email: str) -> None:
    """Keep EMAIL from logging in; all their sessions end."""
    user = existing_user(services, email)
    click.echo(
        _line(services.administration.set_active(user.id, active=False, actor=OPERATOR).value)
    )


@user_commands.command()
@click.argument("email")
@pass_services
def verify(services: Services, email: str) -> None:
    """Confirm that EMAIL is the person's, in place of a mail."""
    user = existing_user(services, email)
    click.echo(_line(services.verification.verify(user.id, OPERATOR).value))


@user_commands.command("set-password")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@pass_services
def set_password(services: Services, email: str, password_stdin: bool) -> None:
    """Set EMAIL's password; all their sessions end. Without --password-stdin a one-time password is
    made up and printed once."""
    password, generated = _password(password_stdin)
    services.password_changes.set_password(email, password, is_one_time=generated)
    click.echo(f"Set the password of {email}; all their sessions have ended.")
    _tell(password, generated)


@user_commands.command()
@click.argument("email")
@pass_services
def reset(services: Services, email: str) -> None:
    """Mail EMAIL a link to choose a new password; where mail is off, print it to hand over."""
    user = existing_user(services, email)
    if services.outbox.enabled:
        services.reset_links.mail_for(user.id, OPERATOR)
        click.echo(f"A mail with a link to choose a new password goes to {user.email}.")
    else:
        link = services.reset_links.make(user.id)
        click.echo(f"Mail is off: hand this link to {user.email}, and to nobody else.\n{link}")
        if link.startswith("/"):
            click.echo("Put the address of this site in front of it: PUBLIC_URL is not set.")
    click.echo(f"It works once, within {RESET_MINUTES} minutes; until then nothing changes.")


@user_commands.command("set-email")
@click.argument("email")
@click.argument("new")
@click.option("--verified", is_flag=True, help="The new address is known to be the person's.")
@pass_services
def set_email(services: Services, email: str, new: str, verified: bool) -> None:
    """Give EMAIL the address NEW; all their sessions end, and the old address is told."""
    user = existing_user(services, email)
    changed = services.email_changes.set_email(user.id, new, verified=verified, actor=OPERATOR)
    click.echo(_line(changed.value))


@user_commands.command("reset-factors")
@click.argument("email")
@pass_services
def reset_factors(services: Services, email: str) -> None:
    """Remove the second factors of EMAIL, who lost them; all their sessions end."""
    user = existing_user(services, email)
    services.factors.reset(user.id, OPERATOR)
    click.echo(f"Removed the second factors of {user.email}; all their sessions have ended.")


@user_commands.command()
@click.argument("email")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_services
def delete(services: Services, email: str, yes: bool) -> None:
    """Delete EMAIL for good, with all that belongs to them."""
    user = existing_user(services, email)
    if not yes:
        click.confirm(f"Delete {user.email}, with all that belongs to them?", abort=True)
    services.administration.delete_user(user.id, OPERATOR)
    click.echo(f"Deleted {user.email}; all their sessions have ended.")


@user_commands.command()
@click.argument("email")
@pass_services
def export(services: Services, email: str) -> None:
    """Print all that is known of EMAIL as JSON: no secret, and nothing about other people."""
    user = existing_user(services, email)
    click.echo(services.exports.of_person(user.id, OPERATOR), nl=False)


@user_commands.command("first-admin", hidden=True)
@pass_services
def first_admin(services: Services) -> None:
    """Add an administrator if there is none (`make run` does this)."""
    if services.users.any_admin():
        return
    password, _ = _password(from_stdin=False)
    roles = (ADMIN, USER)
    services.registration.sign_up(FIRST_ADMIN, password, "Administrator", roles, verified=True)
    click.echo(f"First administrator: {FIRST_ADMIN}\nPassword, shown only now: {password}")


def existing_user(services: Services, email: str) -> Identity:
    """
    Raises:
        InvalidField: it is no email.
        UnknownUser: nobody has it.
    """
    user = services.users.find(services.parse_email(email))
    if user is None:
        raise UnknownUser(f"there is no user {email}")
    return user


def _password(from_stdin: bool) -> tuple[str, bool]:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n"), False
    return secrets.token_urlsafe(15), True


def _tell(password: str, generated: bool) -> None:
    if not generated:
        return
    click.echo(f"Password, shown only now: {password}")
    click.echo(
        f"It lasts {one_time_passwords.HOURS} hours. At log-in the person must choose another one."
    )


def _line(user: Identity) -> str:
    state = "active" if user.active else "inactive"
    roles = ",".join(user.roles) or "-"
    address = "" if user.email_verified else "  unverified"
    return shown(f"{user.id}  {user.email}  {user.name or '-'}  {roles}  {state}{address}")
