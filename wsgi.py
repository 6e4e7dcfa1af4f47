"""The WSGI application: `gunicorn wsgi:app`, and `flask --app wsgi …` for operations."""

import sys

from authapp import create_app
from authapp.errors import SettingError
from config import Config

try:
    app = create_app(Config.from_env())
except SettingError as error:
    sys.exit(f"authapp: {error}")
