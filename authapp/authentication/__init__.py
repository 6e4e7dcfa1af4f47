"""Proving who somebody is: log-in, passwords, their hashing, and the limits of attempts."""
