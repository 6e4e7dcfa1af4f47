"""`users import`: the users of another system, from a file."""

from collections.abc import Sequence
from typing import BinaryIO

import click

from authapp.accounts.importing.users import Batch
from authapp.accounts.visible_text import shown
from authapp.cli.deployment import pass_services
from authapp.errors import StoreUnavailable
from authapp.services import Services

_RANGES = 20  # of line numbers that are listed


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_services
def import_command(services: Services, file: BinaryIO, dry_run: bool) -> None:
    """Add the users of FILE (`-`: standard input), one JSON object a line.

    Fields: email, name, roles (a list), verified, created_at, password_hash; all but email may be
    left out. Each line that can't be imported is named, and the status is then 1. It can be
    interrupted and repeated: an account that is there is skipped, and never changed.
    """
    done = Batch()
    try:
        for batch in services.user_import.run(file, dry_run=dry_run):
            for number, reason in batch.refused:
                click.echo(shown(f"line {number}: {reason}"), err=True)
            done.last_line = batch.last_line
            done.made += batch.made
            done.skipped += batch.skipped
            done.refused += batch.refused
            click.echo(f"{_lines(done)}: {_told(done)}", err=True)
    except StoreUnavailable as error:
        raise click.ClickException(
            f"{error} after line {done.last_line}. Run it again: those who are there are skipped."
        ) from None
    except KeyboardInterrupt:
        click.echo(
            f"Interrupted after line {done.last_line}. Run it again: those who are there are "
            "skipped.",
            err=True,
        )
        raise
    click.echo(f"{'A dry run. ' if dry_run else ''}{_lines(done)}: {_told(done)}.")
    if done.skipped:
        click.echo(f"Skipped, because the email has an account: {_listed(done.skipped)}.")
    if done.refused:
        click.echo("Correct the lines that were refused, and run it again.", err=True)
        raise click.exceptions.Exit(1)


def _lines(done: Batch) -> str:
    return f"{done.last_line} line{'' if done.last_line == 1 else 's'}"


def _told(done: Batch) -> str:
    return f"{done.made} made, {len(done.skipped)} skipped, {len(done.refused)} refused"


def _listed(numbers: Sequence[int]) -> str:
    """`lines 1-5000, 5002`: numbers in order, as ranges."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    listed = [str(low) if low == high else f"{low}-{high}" for low, high in ranges[:_RANGES]]
    more = len(ranges) - len(listed)
    return f"lines {', '.join(listed)}" + (f" and {more} further places" if more else "")
