"""The product, more patient before it refuses a log-in, `tests.attacks.app:app` for a server.

REFUSAL_SECONDS is above what reading and recording take. On a machine as loaded as those that run
tests it may not be, and then what it is to hide shows.
"""

from authapp.passwords import constant_time
from wsgi import app

__all__ = ["app"]

constant_time.REFUSAL_SECONDS = 0.15
