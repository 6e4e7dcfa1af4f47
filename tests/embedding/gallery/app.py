"""The app: a layout of its own, a page for people who are signed in, an act that needs a proof."""

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, redirect, render_template, session, url_for
from flask.typing import ResponseReturnValue

from authapp import Auth, login_required, step_up_required

POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'"


def create_app(settings: Mapping[str, Any]) -> Flask:
    app = Flask(__name__)
    app.config.update(settings)
    Auth(app, url_prefix="/auth", pages=True)  # passkeys come with the pages

    @app.get("/")
    @login_required
    def pictures() -> str:
        return render_template("pictures.html", burnt=session.get("burnt", 0))

    @app.get("/burn")
    @step_up_required
    def burn() -> str:
        return render_template("burn.html")

    @app.post("/burn")
    @step_up_required
    def burn_submit() -> ResponseReturnValue:
        session["burnt"] = session.get("burnt", 0) + 1
        return redirect(url_for("pictures"), 303)

    @app.after_request
    def limit(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return app
