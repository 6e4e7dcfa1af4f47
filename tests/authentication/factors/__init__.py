"""Second factors: authenticator apps, recovery codes, and log-ins that wait for one."""
