"""The whole product as one Flask app: extension, pages, API, forward-auth, health, command line."""

from flask import Flask

from authapp.config import Config
from authapp.extension import set_up
from authapp.telemetry.logging import configure_logging
from authapp.web.app_state import Mount
from authapp.web.health import ProbedFlask

_EVERYTHING = Mount(
    pages=True, api=True, admin=True, health=True, forward_auth=True, is_whole_app=True
)


def create_app(config: Config) -> Flask:
    """The whole product: the extension with everything mounted at `/`, and nothing beside it."""
    configure_logging()
    app = ProbedFlask(__name__, static_folder=None, template_folder=None)
    app.config.from_prefixed_env()  # Flask's own settings: FLASK_…
    set_up(app, config, _EVERYTHING)
    return app
