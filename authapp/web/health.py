"""Health, readiness and metrics, for supervisors, load balancers and Prometheus."""

from flask import Flask, Request, Response, jsonify
from werkzeug.routing import MapAdapter

from authapp.telemetry.metrics import CONTENT_TYPE, exposition
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import services

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})

health = OwnBlueprint("health", __name__)


class ProbedFlask(Flask):
    """A Flask that answers probes whatever the `Host` is.

    Kubernetes and Prometheus ask by the address of a pod, which `TRUSTED_HOSTS` does not name.
    """

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None or request.path not in PROBES:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            "localhost",  # no probe is answered with a link that names a host
            script_name=request.root_path,
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
            query_args=request.query_string.decode("latin-1"),
        )


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
    problems = services().problems(states)
    body = jsonify(status="ok" if ready else "unavailable", stores=stores, problems=problems)
    return body, 200 if ready else 503


@health.get("/metrics")
def metrics() -> Response:
    """All counters, of all worker processes. Keep it from the public: it tells how busy we are."""
    services().note_pending()
    return Response(exposition(), content_type=CONTENT_TYPE)
