"""The WSGI application: `gunicorn wsgi:app`, and `flask --app wsgi auth …` for operations."""

import gc
import sys

# What is made here stays as long as the process: looking for garbage in it, again and again, would
# be a third of the start.
gc.disable()

from authapp import create_app  # noqa: E402
from authapp.errors import SettingError  # noqa: E402
from config import Config  # noqa: E402

try:
    app = create_app(Config.from_env())
except SettingError as error:
    sys.exit(f"authapp: {error}")
gc.freeze()
gc.enable()
