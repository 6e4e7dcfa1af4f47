"""An ordinary Flask app with `Auth`: a guarded page, one that names the signed-in person, one that
writes into the session, a log-in and a log-out. `/cold` is the guarded page for a session without a
copy in Redis."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, session

from authapp import Auth, current_user, login_required
from authapp.cache.keys import session_key

EMAIL = "grace@example.org"

app = Flask(__name__)
app.config.update({name: os.environ[name] for name in os.environ if name.isupper()})
auth = Auth(app)
answer = app.wsgi_app


def forgetful(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Drops the copy before a request of `/cold` looks for it."""
    if environ["PATH_INFO"] == "/cold":
        services = auth.state(app).services
        token = services.tokens.check(environ["HTTP_COOKIE"].partition("=")[2])
        assert token is not None
        services.redis.delete(session_key(token.digest))
    return answer(environ, start)


app.wsgi_app = forgetful  # type: ignore[assignment, method-assign]


@app.get("/page")
@app.get("/cold")
@login_required
def page() -> dict[str, str]:
    return {"name": "Ada"}


@app.get("/who")
def who() -> dict[str, str]:
    return {"name": current_user.name}


@app.get("/count")
@login_required
def count() -> dict[str, int]:
    session["n"] = session.get("n", 0) + 1
    return {"n": session["n"]}


@app.post("/in")
def log_in() -> dict[str, str]:
    """Of a person whom the app has verified by itself: no password is compared."""
    auth.log_in(auth.users.find(EMAIL) or auth.users.create(EMAIL))
    return {}


@app.post("/out")
def log_out() -> dict[str, str]:
    auth.log_out()
    return {}
