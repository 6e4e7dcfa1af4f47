"""The WSGI application; `wsgi.py` at the root is for servers that start there."""

import gc
import sys

# The app lives as long as the process: looking for garbage in it, again and again, would
# be a third of the start.
gc.disable()

from authapp import create_app  # noqa: E402
from authapp.config import Config  # noqa: E402
from authapp.errors import SettingError  # noqa: E402

try:
    app = create_app(Config.from_env())
except SettingError as error:
    sys.exit(f"authapp: {error}")
gc.freeze()
gc.enable()
