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
@click.option("--permission", "permissions", multiple=True, help="May be repeated.")
@pass_services
def create(services: Services, name: str, permissions: tuple[str, ...]) -> None:
    """Add the role NAME, which allows nothing but the permissions that are named."""
    click.echo(_line(services.users.create_role(name, permissions)))


@role_commands.command("list")
@pass_services
def list_(services: Services) -> None:
    """Show all roles: name and permissions."""
    for role in services.users.roles():
        click.echo(_line(role))


def _line(role: Role) -> str:
    return shown(f"{role.name}  {','.join(role.permissions) or '-'}")
