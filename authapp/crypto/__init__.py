"""Keys, sealing, and the tokens that visitors hold."""
