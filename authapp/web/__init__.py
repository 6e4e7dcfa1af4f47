"""Everything that knows Flask."""
