"""The deployment that the commands work on: settings, stores and services of one app."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import click
from flask import Flask, current_app, has_app_context
from flask.cli import ScriptInfo
from sqlalchemy.exc import ProgrammingError

from authapp.doctor.findings import Finding
from authapp.errors import SettingError
from authapp.services import Services

_KEY = "authapp.cli"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings, services and examination that the commands of one app use.

    Attributes:
        examine: the findings of `doctor`.
        cookie_name: of the session's cookie.
        public_url: PUBLIC_URL; empty without that setting.
    """

    database_url: str
    database_schema: str
    services: Services
    examine: Callable[[], list[Finding]]
    cookie_name: str
    public_url: str


def remember_deployment(app: Flask, deployment: Deployment) -> None:
    """Lets `pass_deployment` find the deployment of an app."""
    app.extensions[_KEY] = deployment


def pass_deployment(command: Callable[Concatenate[Deployment, P], R]) -> Callable[P, R]:
    """Decorate a command that takes the deployment as its first argument.

    The app is made when the command runs, so that `--help` works without any settings.
    """

    @wraps(command)
    def with_deployment(*args: P.args, **kwargs: P.kwargs) -> R:
        context = click.get_current_context()
        app = context.ensure_object(ScriptInfo).load_app()
        if not has_app_context() or current_app._get_current_object() is not app:  # type: ignore[attr-defined]
            context.with_resource(app.app_context())
        deployment: Deployment = app.extensions[_KEY]
        try:
            return command(deployment, *args, **kwargs)
        except ProgrammingError:
            _require_usable_schema(deployment)
            raise

    return with_deployment


def _require_usable_schema(deployment: Deployment) -> None:
    """
    Raises:
        SettingError: the database lacks a table or column because it was not migrated.
    """
    from authapp.storage import schema  # noqa: PLC0415 — brings Alembic, which few commands need

    found = schema.current(deployment.database_url, schema=deployment.database_schema)
    if not found.is_usable:
        raise SettingError(f"the database is {found.told}: {found.remedy}")


def pass_services(command: Callable[Concatenate[Services, P], R]) -> Callable[P, R]:
    """Decorate a command that takes the services as its first argument; else as above."""

    @pass_deployment
    @wraps(command)
    def with_services(deployment: Deployment, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return command(deployment.services, *args, **kwargs)

    return with_services
