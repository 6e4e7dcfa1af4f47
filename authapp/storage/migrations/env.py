"""Runs migrations on the connection it is handed (see `authapp/storage/schema.py`).

Migrations name no schema: the connection looks only in the one that our tables are in. Their
functions are named `authapp_…`, and look only there, too, once each migration is done.
"""

from collections.abc import Collection
from typing import Any

from alembic import context

from authapp.storage.factors.models import TotpSecret  # and so all tables
from authapp.storage.migrations.installations import (
    note_compatibility,
    oldest_declared,
    pin_functions,
)

attributes = context.config.attributes


def finish(*_step: Any, heads: Collection[Any] = (), **_named: Any) -> None:
    """Pins functions, though not before migration 0013, where they are in the schema of others; and
    notes with which versions the schema works."""
    connection = attributes["connection"]
    applied = context.script.iterate_revisions(tuple(heads) or "base", "base")
    note_compatibility(connection, oldest_declared(applied))
    if connection.exec_driver_sql("SELECT current_schema()").scalar() == attributes["schema"]:
        pin_functions(connection)


context.configure(
    connection=attributes["connection"],
    target_metadata=TotpSecret.metadata,
    transaction_per_migration=True,
    on_version_apply=finish,
)
with context.begin_transaction():
    context.run_migrations()
