"""An app that knows nothing of log-in: the proxy says who is asking.

python examples/guarded/app.py PORT
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


def app(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
    person = environ["HTTP_REMOTE_USER"]  # people are known by this alone
    name = environ.get("HTTP_REMOTE_NAME") or environ.get("HTTP_REMOTE_EMAIL", "")
    groups = environ.get("HTTP_REMOTE_GROUPS", "")
    asked = parse_qs(environ.get("QUERY_STRING", ""))
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    text = f"person: {person}\nname: {name}\nroles: {groups}\nquery: {asked}\n"
    return [text.encode("latin-1")]  # as WSGI has it


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
