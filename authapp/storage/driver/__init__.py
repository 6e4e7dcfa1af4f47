"""Statements that are run past SQLAlchemy's execution."""
