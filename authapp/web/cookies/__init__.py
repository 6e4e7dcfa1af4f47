"""Our cookies: reading them from the raw header, the scopes a browser keeps them in, plain HTTP."""
