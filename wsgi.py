"""The WSGI application: `gunicorn wsgi:app`, and `flask --app wsgi auth …` for operations."""

from authapp.wsgi import app

__all__ = ["app"]
