"""The app of a soak with a leak of each kind: the soak must find them."""

import os
import secrets
from threading import Event, Thread

import psycopg2
import redis

from benchmarks.soak.app import app

KEPT: list[object] = []
BYTES = 400_000  # for each request


@app.before_request
def leak() -> None:
    KEPT.append(secrets.token_bytes(BYTES))
    if len(KEPT) % 3 == 0:
        Thread(target=Event().wait, daemon=True).start()
        KEPT.append(open(os.devnull))  # noqa: SIM115 — the leak
        redis_client = redis.Redis.from_url(os.environ["REDIS_URL"])
        redis_client.set(f"leaked:{secrets.token_hex(8)}", "")
        KEPT.append(redis_client)
    if len(KEPT) % 10 == 0:
        KEPT.append(psycopg2.connect(os.environ["DATABASE_URL"], application_name="authapp"))
