"""Guards other apps: what is demanded of a request to one, and what is asserted to it."""
