"""The description of the API: `/api/v1/openapi.json` for programs, `/api/v1/` for people."""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Blueprint, Response, current_app, render_template, request

from authapp.web.api.description import document, endpoints
from authapp.web.api.representations import json_response
from authapp.web.middleware.mount_point import link_to

api_docs = Blueprint("api_docs", __name__, url_prefix="/api/v1")


@api_docs.get("/openapi.json")
def openapi() -> Response:
    """OpenAPI 3.1."""
    return json_response(_document())


@api_docs.get("/", strict_slashes=False)
def page() -> str:
    """The same for people, without any script."""
    documented = _document()
    operations = [
        (endpoint, documented["paths"][endpoint.path][endpoint.method.lower()])
        for endpoint in sorted(endpoints(current_app), key=lambda e: (e.path, e.method))
    ]
    return render_template(
        "authapp/api.html",
        operations=operations,
        schemas={
            name: json.dumps(schema, indent=2)
            for name, schema in documented["components"]["schemas"].items()
        },
    )


def _document() -> dict[str, Any]:
    cookie = current_app.config["SESSION_COOKIE_NAME"]
    return document(current_app, cookie, _version(), link_to(request.environ, ""))


def _version() -> str:
    try:
        return version("authapp")
    except PackageNotFoundError:  # run from a checkout
        return "unreleased"
