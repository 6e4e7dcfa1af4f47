"""Postgres and Redis: connections, bounds, circuit breakers, tables, migrations."""
