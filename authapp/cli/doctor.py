"""`doctor`: what is not as it should be, and the remedy."""

import sys
from collections.abc import Sequence

import click
import msgspec

from authapp.cli.deployment import Deployment, pass_deployment
from authapp.doctor.findings import Finding, State
from authapp.doctor.outside import Visitor, examine_from_outside
from authapp.errors import StoreUnavailable
from authapp.sessions.records import ActiveSession


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.option(
    "--url",
    help="Look at a site from outside instead, through its proxy: the address of authapp, or a "
    "page of an app that it guards.",
)
@click.option(
    "--session-stdin",
    is_flag=True,
    help="With --url: read the value of a session's cookie from standard input, and examine what "
    "reaches the guarded app from that person. The page must print the headers that it gets.",
)
@pass_deployment
def doctor_command(
    deployment: Deployment, as_json: bool, url: str | None, session_stdin: bool
) -> None:
    """Say what is not as it should be, and the remedy; status 1 if anything fails."""
    if url is None:
        if session_stdin:
            raise click.UsageError("--session-stdin goes with --url")
        found = deployment.examine()
    else:
        found = _from_outside(deployment, url, _read_session() if session_stdin else "")
    _show(found, as_json=as_json)
    if any(finding.state is State.FAIL for finding in found):
        raise click.exceptions.Exit(1)


def _read_session() -> str:
    return sys.stdin.readline().strip()


def _from_outside(deployment: Deployment, url: str, cookie: str) -> list[Finding]:
    services = deployment.services
    person_id = ""
    if cookie:
        token = services.tokens.check(cookie)
        try:
            session = services.sessions.find(token) if token else None
        except StoreUnavailable as error:
            raise click.ClickException(f"nobody can say whose session this is: {error}") from None
        if not isinstance(session, ActiveSession):
            raise click.UsageError("that is no cookie of a live session")
        person_id = str(session.record.user.id)
    visitor = Visitor(
        deployment.cookie_name,
        services.tokens.mint().text,
        any(services.store_states().values()),
        cookie,
        person_id,
    )
    try:
        return examine_from_outside(url, visitor, deployment.public_url)
    except ValueError as error:
        raise click.UsageError(f"--url: {error}") from None


def _show(found: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    width = max(len(finding.check) for finding in found)
    for finding in found:
        told = "; ".join(filter(None, (finding.text, finding.remedy)))
        click.echo(f"{finding.state:4}  {finding.check:{width}}  {told}")
