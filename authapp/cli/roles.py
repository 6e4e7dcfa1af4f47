"""`roles`: roles, and the permissions that they give."""

import click

from authapp.accounts.visible_text import shown
from authapp.cli.deployment import pass_services
from authapp.services import Services
from authapp.storage.models import Role


@click.group("roles")
def role_commands() -> None:
    """Roles, and the permissions that they give."""


@role_commands.command()
@click.argument("name")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    help="May be repeated. An unknown one is refused with the list of all.",
)
@pass_services
def create(services: Services, name: str, permissions: tuple[str, ...]) -> None:
    """Add the role NAME, which allows nothing but the permissions that are named."""
    click.echo(_line(services.roles.create(name, permissions)))


@role_commands.command("list")
@pass_services
def list_(services: Services) -> None:
    """Show all roles: name and permissions."""
    for role in services.roles.list():
        click.echo(_line(role))


@role_commands.command()
@click.argument("name")
@pass_services
def delete(services: Services, name: str) -> None:
    """Delete the role NAME, and take it from all who hold it."""
    people = services.roles.delete(name).value
    click.echo(f"Deleted {name}. {people or 'No'} {'person' if people == 1 else 'people'} held it.")


def _line(role: Role) -> str:
    return shown(f"{role.name}  {','.join(role.permissions) or '-'}")
