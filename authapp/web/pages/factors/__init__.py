"""The pages of second factors: log-in, the security page, what administrators do."""
