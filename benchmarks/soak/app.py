"""The product with pages that read and write `flask.session`."""

from pathlib import Path

from flask import Flask, Response, jsonify, request, session

import authapp
from authapp import create_app, login_required
from authapp.config import Config


def with_views(app: Flask) -> Flask:
    @app.get("/data")
    @login_required
    def data() -> Response:
        return jsonify(dict(session))

    @app.put("/data/<key>")
    @login_required
    def put_data(key: str) -> tuple[str, int]:
        session[key] = request.get_json()
        return "", 204

    @app.get("/code")
    def code() -> Response:
        """Where this version's code is."""
        return jsonify(str(Path(authapp.__file__).parents[1]))

    return app


app = with_views(create_app(Config.from_env()))
