"""The released version and the next one side by side: upgrade, rollback, and upgrade again."""
