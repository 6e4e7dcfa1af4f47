"""A package, so that tests can import what they share: `from .helpers import Clock`."""
