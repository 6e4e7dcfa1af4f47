"""What sessions cost as they become many: `make bench-growth`."""
