"""`audit`: the log of events of accounts."""

from dataclasses import replace

import click
import msgspec

from authapp.accounts.audit import EVENTS, Entry
from authapp.accounts.visible_text import shown
from authapp.cli.deployment import pass_services
from authapp.services import Services


@click.group("audit")
def audit_commands() -> None:
    """The log of events of accounts."""


@audit_commands.command("list")
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
@pass_services
def list_(
    services: Services,
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
        parsed = services.parse_email(email)
        user = services.users.find(parsed)
        if user is None:
            click.echo(f"Nobody has {email}; these are attempts to log in with it.", err=True)
            which = replace(which, email=parsed)
        else:
            which = replace(which, user_ids=[user.id])
    entries = services.audit.page(limit=limit, which=which).entries
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries)))
        return
    for entry in entries:
        click.echo(_line(entry))


def _line(entry: Entry) -> str:
    user, actor = (person.email if person else "-" for person in (entry.user, entry.actor))
    details = msgspec.json.encode(entry.details).decode()
    # a proxy may pass on as an address whatever a client made up; it must not move the cursor
    return shown(
        f"{entry.at:%Y-%m-%d %H:%M:%S}Z  {entry.event}  {user}  by {actor}  "
        f"from {entry.address or '-'}  {details}"
    )
