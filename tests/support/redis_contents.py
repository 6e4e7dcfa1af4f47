"""The whole contents of a Redis server."""

from typing import Any


def everything_in(client: Any) -> dict[bytes, bytes]:
    """Each key of the server with its whole value, as bytes."""
    found: dict[bytes, bytes] = {}
    for key in client.scan_iter():
        match client.type(key):
            case b"string":
                parts = [client.get(key)]
            case b"hash":
                parts = [part for pair in client.hgetall(key).items() for part in pair]
            case b"list":
                parts = client.lrange(key, 0, -1)
            case b"set":
                parts = client.smembers(key)
            case b"zset":
                parts = client.zrange(key, 0, -1)
            case other:
                raise AssertionError(f"teach this function to read a {other!r}")
        found[key] = b"\n".join(parts)
    return found
