"""Factors beside the password: what a person holds, and how a log-in asks for it."""
