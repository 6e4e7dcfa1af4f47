"""Recovery: people choose a new password by a link that counts once."""
