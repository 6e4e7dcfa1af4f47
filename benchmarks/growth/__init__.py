"""The cost of sessions as they become many: `make bench-growth`."""
