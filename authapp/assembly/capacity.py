"""How many requests, log-ins and connections a worker has at once."""

REQUEST_THREADS = 8  # a worker, for all but waiting log-ins
POOL_SIZE = REQUEST_THREADS + 2  # Postgres connections a worker; two for its background work


def logins_at_once(threads: int) -> int:
    """How many log-ins may hash or wait in a worker with so many threads.

    They leave REQUEST_THREADS to all others. A worker that has few threads leaves them more than
    half.
    """
    return max(threads - REQUEST_THREADS, threads // 2 - 1, 1)
