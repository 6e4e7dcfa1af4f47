"""Around the web, for each app: the settings it chose, its limiter, and what is mounted in it."""
