"""The WSGI application: `gunicorn wsgi:app`, and `flask --app wsgi …` for operations."""

from authapp import create_app
from config import Config

app = create_app(Config.from_env())
