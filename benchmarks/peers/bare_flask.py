"""One Flask view that asks nobody."""

from flask import Flask

app = Flask(__name__)


@app.get("/me")
def me():
    return {"name": "Ada"}
