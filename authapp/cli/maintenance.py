"""`maintenance`: ends expired sessions and removes old ones."""

from collections import Counter

import click

from authapp.cli.deployment import pass_services
from authapp.errors import StoreUnavailable
from authapp.services import Services


@click.command("maintenance")
@pass_services
def maintenance_command(services: Services) -> None:
    """End expired sessions, remove those that ended long ago. Safe to interrupt.

    Fences that wait for Redis are no failure: running instances set them when it is back.
    """
    with services.maintenance.alone() as alone:
        if not alone:
            raise click.ClickException("another instance is at it; try again later")
        click.echo(_maintain(services))


def _maintain(services: Services) -> str:
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
