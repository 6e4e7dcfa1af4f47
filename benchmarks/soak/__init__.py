"""A soak: people come and go for minutes while stores restart, and nothing may grow."""
