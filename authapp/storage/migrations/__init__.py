"""Migrations, and what they find of our tables in a database."""
