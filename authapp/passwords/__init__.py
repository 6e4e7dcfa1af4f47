"""Passwords: which new ones are accepted, and how they are hashed and compared."""
