"""WSGI layers in front of Flask: request ids, headers, logs, and the fast path."""
