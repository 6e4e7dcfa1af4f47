"""Operations: `flask --app wsgi db|users|roles|sessions|audit|maintenance|doctor …`."""

import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import click
import msgspec
from flask import Flask

from authapp.accounts.audit import EVENTS, Entry
from authapp.accounts.identity import ADMIN, USER, Identity
from authapp.accounts.visible_text import shown
from authapp.doctor.findings import Finding, State
from authapp.errors import AuthappError, StoreUnavailable, UnknownUser
from authapp.services import Services
from authapp.sessions.records import Client, EndReason
from authapp.sessions.user_agents import device_name
from authapp.storage.models import Role

FIRST_ADMIN = "admin@authapp.internal"


class _Group(click.Group):
    """A group whose commands tell our errors in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AuthappError as error:
            raise click.ClickException(str(error)) from None


def register_commands(
    app: Flask, database_url: str, services: Services, examine: Callable[[], list[Finding]]
) -> None:
    """
    Args:
        examine: what `doctor` tells.
    """
    app.cli.add_command(_database_commands(database_url))
    app.cli.add_command(_user_commands(services))
    app.cli.add_command(_role_commands(services))
    app.cli.add_command(_session_commands(services))
    app.cli.add_command(_audit_commands(services))
    app.cli.add_command(_maintenance_command(services))
    app.cli.add_command(_doctor_command(examine))


def _database_commands(database_url: str) -> click.Group:
    @click.group("db", cls=_Group)
    def db() -> None:
        """The database's schema."""

    @db.command()
    def upgrade() -> None:
        """Bring the schema to what this version needs."""
        from authapp.storage import schema  # noqa: PLC0415 — brings Alembic, which no worker needs

        schema.upgrade(database_url)
        click.echo("The database is up to date.")

    @db.command()
    @click.argument("revision")
    def downgrade(revision: str) -> None:
        """Take the schema back to REVISION, with the data it does not hold (`base`: all)."""
        from authapp.storage import schema  # noqa: PLC0415 — as above

        schema.downgrade(database_url, revision)
        click.echo(f"The database is at {revision}.")

    return db


def _user_commands(services: Services) -> click.Group:
    users = services.users

    @click.group("users", cls=_Group)
    def group() -> None:
        """People who can log in."""

    @group.command()
    @click.argument("email")
    @click.option("--name", default="", help="What the person is called.")
    @click.option("--role", "roles", multiple=True, help="May be repeated; `user` if left out.")
    @click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    def create(email: str, name: str, roles: tuple[str, ...], password_stdin: bool) -> None:
        """Add a user; without --password-stdin a password is made up and printed once."""
        password, generated = _password(password_stdin)
        services.registration.sign_up(email, password, name, roles or (USER,))
        click.echo(f"Created {email}.")
        _tell(password, generated)

    @group.command("list")
    def list_() -> None:
        """Show all users, newest first."""
        cursor = None
        while True:
            page = users.page(cursor, limit=200)
            for user in page.users:
                click.echo(_line(user))
            if (cursor := page.next_cursor) is None:
                return

    @group.command()
    @click.argument("email")
    def show(email: str) -> None:
        """Show one user."""
        click.echo(_line(_existing(services, email)))

    @group.command()
    @click.argument("email")
    @click.argument("role")
    def grant(email: str, role: str) -> None:
        """Give EMAIL a ROLE."""
        click.echo(_line(users.grant(users.parse_email(email).canonical, role)))

    @group.command()
    @click.argument("email")
    @click.argument("role")
    def revoke(email: str, role: str) -> None:
        """Take a ROLE from EMAIL."""
        click.echo(_line(users.revoke(users.parse_email(email).canonical, role)))

    @group.command()
    @click.argument("email")
    def activate(email: str) -> None:
        """Let EMAIL log in again."""
        user = _existing(services, email)
        click.echo(_line(services.administration.set_active(user.id, active=True, actor=None)))

    @group.command()
    @click.argument("email")
    def deactivate(email: str) -> None:
        """Keep EMAIL from logging in; all their sessions end."""
        user = _existing(services, email)
        click.echo(_line(services.administration.set_active(user.id, active=False, actor=None)))

    @group.command("set-password")
    @click.argument("email")
    @click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    def set_password(email: str, password_stdin: bool) -> None:
        """Set EMAIL's password; all their sessions end."""
        password, generated = _password(password_stdin)
        services.password_changes.set_password(email, password)
        click.echo(f"Set the password of {email}; all their sessions have ended.")
        _tell(password, generated)

    @group.command("first-admin", hidden=True)
    def first_admin() -> None:
        """Add an administrator if there is none (`make run` does this)."""
        if users.any_admin():
            return
        password, _ = _password(from_stdin=False)
        services.registration.sign_up(FIRST_ADMIN, password, "Administrator", (ADMIN, USER))
        click.echo(f"First administrator: {FIRST_ADMIN}\nPassword, shown only now: {password}")

    return group


def _role_commands(services: Services) -> click.Group:
    @click.group("roles", cls=_Group)
    def group() -> None:
        """Roles, and the permissions that they give."""

    @group.command()
    @click.argument("name")
    @click.option("--permission", "permissions", multiple=True, help="May be repeated.")
    def create(name: str, permissions: tuple[str, ...]) -> None:
        """Add the role NAME, which allows nothing but the permissions that are named."""
        click.echo(_role_line(services.users.create_role(name, permissions)))

    @group.command("list")
    def list_() -> None:
        """Show all roles: name and permissions."""
        for role in services.users.roles():
            click.echo(_role_line(role))

    return group


def _session_commands(services: Services) -> click.Group:
    @click.group("sessions", cls=_Group)
    def group() -> None:
        """Who is signed in where."""

    @group.command("list")
    @click.argument("email")
    def list_(email: str) -> None:
        """Show the live sessions of EMAIL, the most recently seen first."""
        for session in services.sessions.of_user(_existing(services, email).id):
            click.echo(
                f"{session.id}  {session.kind}  {device_name(session.user_agent)}  "
                f"{shown(session.address) or '-'}  seen {session.last_seen_at:%Y-%m-%d %H:%M}Z"
            )

    @group.command()
    @click.argument("email")
    @click.argument("session_id", type=click.UUID, required=False)
    def revoke(email: str, session_id: UUID | None) -> None:
        """End one session of EMAIL, or all of them."""
        user = _existing(services, email)
        if session_id is None:
            ended = services.administration.end_sessions_of(user.id, None)
        else:
            why = EndReason.REVOKED_BY_ADMIN
            ended = int(services.sessions.end_one(user.id, session_id, why, Client()))
        click.echo(f"Ended {ended} session{'' if ended == 1 else 's'}.")

    return group


def _audit_commands(services: Services) -> click.Group:
    @click.group("audit", cls=_Group)
    def group() -> None:
        """What happened to accounts."""

    @group.command("list")
    @click.option(
        "--user",
        "email",
        metavar="EMAIL",
        help="Only what happened to EMAIL; if nobody has it, attempts to log in with it.",
    )
    @click.option("--event", type=click.Choice(EVENTS), metavar="EVENT", help="Like login.failed.")
    @click.option("--address", metavar="ADDRESS", help="Only from this IP address.")
    @click.option("--since", metavar="TIME", help="2026-11-27T10:30 (UTC), or ago: 15m, 2h, 7d.")
    @click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
    @click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
    def list_(
        email: str | None,
        event: str | None,
        address: str | None,
        since: str | None,
        limit: int,
        as_json: bool,
    ) -> None:
        """Show events, newest first: when, what, to whom, by whom, from where, and more."""
        which = services.audit.filter(event or "", address or "", since or "")
        if email:
            canonical = services.users.parse_email(email).canonical
            user = services.users.find(canonical)
            if user is None:
                click.echo(f"Nobody has {email}; these are attempts to log in with it.", err=True)
                which = replace(which, email=canonical)
            else:
                which = replace(which, user_ids=[user.id])
        entries = services.audit.page(limit=limit, which=which).entries
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(entries)))
            return
        for entry in entries:
            click.echo(_event_line(entry))

    return group


def _maintenance_command(services: Services) -> click.Command:
    @click.command("maintenance")
    def maintenance() -> None:
        """End expired sessions, remove those that ended long ago. Safe to interrupt.

        Fences that wait for Redis are no failure: running instances set them when it is back.
        """
        try:
            with services.maintenance.alone() as alone:
                if not alone:
                    raise click.ClickException("another instance is at it; try again later")
                click.echo(_maintained(services))
        except AuthappError as error:
            raise click.ClickException(str(error)) from None

    return maintenance


def _maintained(services: Services) -> str:
    """Does it, telling of each batch; what is to be said at the end.

    Raises:
        StoreUnavailable: something is left that nobody else will do.
    """
    done: Counter[str] = Counter()
    try:
        for progress in services.maintenance.run():
            done[progress.step] += progress.rows
            click.echo(f"{progress.step}: {done[progress.step]}")
    except StoreUnavailable as error:
        if error.store != "redis":
            raise
        waiting = services.changes.pending()
        return f"Redis is away: {waiting} fences wait for it; running instances set them then."
    return "Nothing is left to do."


def _doctor_command(examine: Callable[[], list[Finding]]) -> click.Command:
    @click.command("doctor")
    @click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
    def doctor(as_json: bool) -> None:
        """Say what is not as it should be, and the remedy; status 1 if anything fails."""
        found = examine()
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(found)))
        else:
            width = max(len(finding.check) for finding in found)
            for finding in found:
                told = "; ".join(filter(None, (finding.text, finding.remedy)))
                click.echo(f"{finding.state:4}  {finding.check:{width}}  {told}")
        if any(finding.state is State.FAIL for finding in found):
            raise click.exceptions.Exit(1)

    return doctor


def _existing(services: Services, email: str) -> Identity:
    user = services.users.find(services.users.parse_email(email).canonical)
    if user is None:
        raise UnknownUser(f"there is no user {email}")
    return user


def _password(from_stdin: bool) -> tuple[str, bool]:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n"), False
    return secrets.token_urlsafe(15), True


def _tell(password: str, generated: bool) -> None:
    if generated:
        click.echo(f"Password, shown only now: {password}")


def _event_line(entry: Entry) -> str:
    user, actor = (person.email if person else "-" for person in (entry.user, entry.actor))
    details = msgspec.json.encode(entry.details).decode()
    # a proxy may pass on as an address whatever a client made up; it must not move the cursor
    return shown(
        f"{entry.at:%Y-%m-%d %H:%M:%S}Z  {entry.event}  {user}  by {actor}  "
        f"from {entry.address or '-'}  {details}"
    )


def _line(user: Identity) -> str:
    state = "active" if user.active else "inactive"
    roles = ",".join(user.roles) or "-"
    return shown(f"{user.id}  {user.email}  {user.name or '-'}  {roles}  {state}")


def _role_line(role: Role) -> str:
    return shown(f"{role.name}  {','.join(role.permissions) or '-'}")
