"""The description of the API: `/api/v1/openapi.json` for programs, `/api/v1/` for people."""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Response, current_app, request

from authapp.web.api.description import document, endpoints
from authapp.web.api.representations import json_response
from authapp.web.app_state import state_of
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import services
from authapp.web.middleware.mount_point import link_to
from authapp.web.pages.rendering import render_page

api_docs = OwnBlueprint("api_docs", __name__, url_prefix="/api/v1")


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
        for endpoint in sorted(endpoints(current_app, _prefix()), key=lambda e: (e.path, e.method))
    ]
    return render_page(
        "authapp/api.html",
        operations=operations,
        server=link_to(request.environ, _prefix()),
        schemas={
            name: json.dumps(schema, indent=2)
            for name, schema in documented["components"]["schemas"].items()
        },
    )


def _document() -> dict[str, Any]:
    cookie = current_app.config["SESSION_COOKIE_NAME"]
    return document(
        current_app,
        cookie,
        _version(),
        _prefix(),
        link_to(request.environ, _prefix()),
        least_password=services().password_policy.min_length,
    )


def _prefix() -> str:
    return state_of().mount.url_prefix


def _version() -> str:
    try:
        return version("authapp")
    except PackageNotFoundError:  # run from a checkout
        return "unreleased"
