"""One GET in Redis by a connection a thread: the least that asking a store takes."""

import os
import threading

import redis

BODY = b'{"name":"Ada"}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]
POOL = redis.ConnectionPool.from_url(
    os.environ["REDIS_URL"], socket_timeout=0.25, socket_connect_timeout=0.25
)
redis.Redis(connection_pool=POOL).set("bench:session", b"x" * 600)
threads = threading.local()


def app(_environ, start_response):
    if not hasattr(threads, "connection"):
        threads.connection = POOL.get_connection()
    threads.connection.send_command("GET", "bench:session")
    threads.connection.read_response()
    start_response("200 OK", HEADERS)
    return [BODY]
