"""`doctor`: what is not as it should be, and the remedy."""

import click
import msgspec

from authapp.cli.deployment import Deployment, pass_deployment
from authapp.doctor.findings import State


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@pass_deployment
def doctor_command(deployment: Deployment, as_json: bool) -> None:
    """Say what is not as it should be, and the remedy; status 1 if anything fails."""
    found = deployment.examine()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        width = max(len(finding.check) for finding in found)
        for finding in found:
            told = "; ".join(filter(None, (finding.text, finding.remedy)))
            click.echo(f"{finding.state:4}  {finding.check:{width}}  {told}")
    if any(finding.state is State.FAIL for finding in found):
        raise click.exceptions.Exit(1)
