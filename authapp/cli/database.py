"""`db`: the database's schema."""

import click

from authapp.cli.deployment import Deployment, pass_deployment


@click.group("db")
def database_commands() -> None:
    """The database's schema."""


@database_commands.command()
@pass_deployment
def upgrade(deployment: Deployment) -> None:
    """Bring the schema to what this version needs."""
    from authapp.storage import schema  # noqa: PLC0415 — brings Alembic, which no worker needs

    schema.upgrade(deployment.database_url, schema=deployment.database_schema)
    click.echo("The database is up to date.")


@database_commands.command()
@click.argument("revision")
@pass_deployment
def downgrade(deployment: Deployment, revision: str) -> None:
    """Take the schema back to REVISION, with the data it does not hold (`base`: all)."""
    from authapp.storage import schema  # noqa: PLC0415 — as above

    schema.downgrade(deployment.database_url, revision, schema=deployment.database_schema)
    click.echo(f"The database is at {revision}.")


@database_commands.command()
@pass_deployment
def current(deployment: Deployment) -> None:
    """Show the revision that the database is at, and what this version needs and works with."""
    from authapp.storage import schema  # noqa: PLC0415 — as above

    found = schema.current(deployment.database_url, schema=deployment.database_schema)
    click.echo(f"The database is at revision {found.found}; this version needs {found.needed}.")
    oldest = schema.works_with()
    click.echo(f"Versions that need {oldest} or a newer revision work beside this one.")
