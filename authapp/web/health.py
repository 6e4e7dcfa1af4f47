"""Health, readiness and metrics, for supervisors, load balancers and Prometheus."""

from flask import Blueprint, Response, jsonify

from authapp.observability import METRICS_TYPE, exposition
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
    stores = {name: "ok" if answers else "unavailable" for name, answers in states.items()}
    problems = services().problems() if states["redis"] else []
    body = jsonify(status="ok" if ready else "unavailable", stores=stores, problems=problems)
    return body, 200 if ready else 503


@health.get("/metrics")
def metrics() -> Response:
    """All counters, of all worker processes. Keep it from the public: it tells how busy we are."""
    services().note_pending()
    return Response(exposition(), content_type=METRICS_TYPE)
