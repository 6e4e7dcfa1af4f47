"""Connections to Postgres and Redis: bounds, circuit breakers, tables, migrations, background work."""
