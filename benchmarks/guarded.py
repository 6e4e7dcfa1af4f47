"""An ordinary Flask app with `Auth`: a guarded page, one that names the signed-in person, and one
that writes into the session."""

import os

from flask import Flask, session

from authapp import Auth, current_user, login_required

app = Flask(__name__)
app.config.update({name: os.environ[name] for name in os.environ if name.isupper()})
Auth(app)


@app.get("/page")
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
