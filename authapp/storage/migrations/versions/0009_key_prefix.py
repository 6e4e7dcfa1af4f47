"""The prefix of keys in Redis, which all instances of a database share."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("key_prefix", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_deployment_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
    )
    # whoever signed up did so with a version that knew no prefix, and it may still run
    op.execute("INSERT INTO deployment (key_prefix) SELECT '' WHERE EXISTS (SELECT FROM users)")


def downgrade() -> None:
    op.drop_table("deployment")
