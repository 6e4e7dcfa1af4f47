"""The versioned cache in Redis, its keys, and the changes that keep it true."""
