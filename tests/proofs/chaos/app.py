"""The product with some pages of an app that embeds it: `tests.proofs.chaos.app:app`.

CHAOS_SLOW_FILLS: milliseconds; fills come late by up to as much, so that more changes overtake
them. CHAOS_CONTROL: `double-delete` puts in place of fences and leases what most applications do,
and the tests must notice. CHAOS_CLOCK: a file; the clock goes as many seconds wrong as it says.
"""

import os
import random
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import redis
from flask import Flask, Response, jsonify, request, session

from authapp import create_app, extension, login_required
from authapp.cache.versioned_cache import FillOutcome, Lease, VersionedCache
from authapp.services import build_services, utc_now
from authapp.storage.redis import redis_client
from config import Config

HELD_SECONDS = 12.0  # below what clients wait for an answer


def add_views(app: Flask) -> None:
    @app.get("/data")
    @login_required
    def data() -> Response:
        return jsonify(dict(session))

    @app.put("/data/<key>")
    @login_required
    def put_data(key: str) -> tuple[str, int]:
        session[key] = request.get_json()
        return "", 204

    @app.put("/held-data/<key>")
    @login_required
    def put_data_held(key: str) -> tuple[str, int]:
        """Knows the session, says so by the file `known`, and saves it once there is `go`."""
        session[key] = request.get_json()
        folder = Path(request.args["folder"])
        (folder / "known").touch()
        give_up = time.monotonic() + HELD_SECONDS
        while not (folder / "go").exists():
            if time.monotonic() > give_up:
                return "", 500
            time.sleep(0.005)
        return "", 204


def slow_fills(milliseconds: float) -> None:
    fill = VersionedCache.fill

    def late(
        self: VersionedCache, key: str, lease: Lease, version: int, value: bytes, ttl: float
    ) -> FillOutcome:
        time.sleep(random.random() * milliseconds / 1000)
        return fill(self, key, lease, version, value, ttl)

    setattr(VersionedCache, "fill", late)  # noqa: B010 - mypy refuses to assign a method


def double_delete(client: "redis.Redis") -> None:
    """The control: delete before and after the commit, fill without asking."""

    def fill(
        self: VersionedCache, key: str, lease: Lease, _version: int, value: bytes, ttl: float
    ) -> FillOutcome:
        client.hset(key, mapping={"v": self._sealer.seal(key, value), "b": lease.boot})
        client.expire(key, int(ttl))
        return "filled"

    def delete(_self: VersionedCache, versions: Mapping[str, int], **_how: bool) -> None:
        if versions:
            client.delete(*versions)

    setattr(VersionedCache, "fill", fill)  # noqa: B010 - as above
    setattr(VersionedCache, "fence", delete)  # noqa: B010 - as above


def wrong_clock(path: Path) -> None:
    def clock() -> datetime:
        return utc_now() + timedelta(seconds=float(path.read_text()))

    setattr(extension, "build_services", partial(build_services, clock=clock))  # noqa: B010 - as above


config = Config.from_env()
if "CHAOS_CLOCK" in os.environ:
    wrong_clock(Path(os.environ["CHAOS_CLOCK"]))
if os.environ.get("CHAOS_CONTROL") == "double-delete":
    double_delete(redis_client(config.REDIS_URL, retries=1))
slow_fills(float(os.environ.get("CHAOS_SLOW_FILLS", "0")))
app = create_app(config)
add_views(app)
