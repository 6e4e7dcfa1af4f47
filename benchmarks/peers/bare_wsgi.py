"""The least that gunicorn can serve: no framework, no store."""

BODY = b'{"name":"Ada"}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def app(_environ, start_response):
    start_response("200 OK", HEADERS)
    return [BODY]
