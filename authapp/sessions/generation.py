"""The generation of sessions: one number in Postgres that ends the sessions of everybody.

A session keeps the generation in which it began, and ends when the number rises above that. So one
statement ends all sessions and touches none of their rows.
"""

from sqlalchemy import ColumnElement, update

from authapp.cache.changes import Change
from authapp.storage.deployments import current_generation
from authapp.storage.models import Deployment, SessionRow, table_of

_sessions = table_of(SessionRow).c


def is_live() -> ColumnElement[bool]:
    """The condition that a session has not ended, alone or with those of everybody."""
    return _sessions.ended_at.is_(None) & ~is_outlived()


def is_outlived() -> ColumnElement[bool]:
    """The condition that a session ended together with those of everybody."""
    return _sessions.generation < current_generation()


def put_back_generation(change: Change, generation: int) -> bool:
    """Raises the generation to one that copies know and Postgres has lost.

    Nothing is fenced: all copies of this life are compared with that generation.

    Returns:
        whether Postgres had an older one.
    """
    raised = change.db.scalar(
        update(Deployment)
        .where(Deployment.session_generation < generation)
        .values(session_generation=generation)
        .returning(Deployment.session_generation)
    )
    return raised is not None


def begin_generation(change: Change) -> None:
    """Ends every session there is, within a change that the caller completes.

    A log-in at the same moment may still begin its session in the generation that ends. Then that
    session ends with it. A session that replaces another one stays in the generation of that one,
    so none escapes into the next.
    """
    generation = change.db.scalar(
        update(Deployment)
        .values(session_generation=Deployment.session_generation + 1)
        .returning(Deployment.session_generation)
    )
    assert generation is not None  # noqa: S101 — each connection sees to it that there is a row
    change.touch_all_sessions(generation)
