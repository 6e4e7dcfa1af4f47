"""Embedded PostgreSQL and Valkey, for development and tests, and `make run`."""

from authapp.dev.engine import EmbeddedError, Server, private_socket_dir
from authapp.dev.postgres import PostgreSQL
from authapp.dev.valkey import Valkey

__all__ = ["EmbeddedError", "PostgreSQL", "Server", "Valkey", "private_socket_dir"]
