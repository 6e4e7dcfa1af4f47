"""How gunicorn and granian serve the application."""
