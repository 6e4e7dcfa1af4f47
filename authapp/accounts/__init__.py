"""Accounts: users, roles, email addresses, credentials, and the audit log."""
