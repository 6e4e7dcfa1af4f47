"""Metrics and logs, and the thread that writes both."""
