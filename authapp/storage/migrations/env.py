"""Runs migrations on the connection it is handed (see `authapp/storage/schema.py`).

Migrations name no schema: the connection looks only in the one that our tables are in. Their
functions are named `authapp_…`, and look only there, too, once each migration is done.
"""

from typing import Any

from alembic import context

from authapp.storage.installations import pin_functions
from authapp.storage.models import Base

attributes = context.config.attributes


def pin(*_step: Any, **_named: Any) -> None:
    """Not before migration 0013, where they are in the schema of others."""
    connection = attributes["connection"]
    if connection.exec_driver_sql("SELECT current_schema()").scalar() == attributes["schema"]:
        pin_functions(connection)


context.configure(
    connection=attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
    on_version_apply=pin,
)
with context.begin_transaction():
    context.run_migrations()
