"""What `gunicorn wsgi:app` reads: the settings of `authapp/serving/gunicorn.py`."""

from authapp.serving.gunicorn import *  # noqa: F403 — gunicorn reads every name
