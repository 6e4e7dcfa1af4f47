"""Health of the process and readiness of the service, for supervisors and load balancers."""

from flask import Blueprint, Response, jsonify

from authapp.web.guards import services

health = Blueprint("health", __name__)


@health.get("/healthz")
def healthz() -> Response:
    """200 while the process runs; asks nothing."""
    return jsonify(status="ok")


@health.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 while requests can be answered: one store is enough for that. Else 503."""
    states = services().store_states()
    ready = any(states.values())
    body = {name: "ok" if answers else "unavailable" for name, answers in states.items()}
    return jsonify(status="ok" if ready else "unavailable", stores=body), 200 if ready else 503
