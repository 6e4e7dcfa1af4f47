"""The import of users whom another system knows."""
