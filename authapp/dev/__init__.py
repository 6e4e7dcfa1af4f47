"""Embedded PostgreSQL and Valkey for development and tests, and `make run`."""
