"""People and what is known of them: accounts, roles, email addresses, credentials, the audit log."""
