"""The configuration of `gunicorn wsgi:app`: the settings of `authapp/serving/gunicorn.py`."""

from authapp.serving.gunicorn import *  # noqa: F403 — gunicorn reads every name
