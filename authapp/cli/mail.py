"""`mail`: mails that wait, and whether mail can leave."""

import click
import msgspec

from authapp.cli.deployment import pass_services
from authapp.errors import MailOff
from authapp.mail.sending import MailSender
from authapp.mail.transport import DeliveryFailed, Unconfirmed, Unreachable
from authapp.services import Services


@click.group("mail")
def mail_commands() -> None:
    """Mails that wait, and whether mail can leave."""


@mail_commands.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
@pass_services
def status(services: Services, as_json: bool) -> None:
    """Show how many mails wait, were sent, or were dropped, of the last 30 days."""
    state = services.mail_queue.state()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(state)))
        return
    click.echo(f"Mail is {'on' if services.outbox.enabled else 'off: set MAIL_URL to turn it on'}.")
    since = f", the oldest since {state.oldest:%Y-%m-%d %H:%M}Z" if state.oldest else ""
    click.echo(f"{state.waiting} waiting{since}, {state.sent} sent, {state.failed} dropped.")
    if state.last_error:
        click.echo(f"The last reason not to send one: {state.last_error}")


@mail_commands.command()
@pass_services
def retry(services: Services) -> None:
    """Have running instances try the mails now that failed and would wait longer.

    Mails that are due within five minutes are left alone: one of them may be on its way.
    """
    _sender(services)
    count = services.mail_queue.retry()
    click.echo(f"{count} mail{'' if count == 1 else 's'} will be tried now.")


@mail_commands.command()
@click.argument("address")
@pass_services
def test(services: Services, address: str) -> None:
    """Send a mail to ADDRESS from here, past the queue and the caps, and say how it went."""
    sender = _sender(services)
    to = services.parse_email(address)
    try:
        where = sender.send_now("test", to)
    except (DeliveryFailed, Unconfirmed, Unreachable) as error:
        raise click.ClickException(f"the mail was not sent: {error.reason}") from None
    click.echo(f"A mail to {to.stored} is {where}.")


def _sender(services: Services) -> MailSender:
    if services.mail_sender is None:
        raise MailOff("Mail is off: set MAIL_URL to turn it on")
    return services.mail_sender
