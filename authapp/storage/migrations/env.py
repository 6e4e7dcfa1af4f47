"""Runs migrations on the connection it is handed (see `authapp/storage/schema.py`)."""

from alembic import context

from authapp.storage.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
