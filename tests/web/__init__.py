"""The web edge, asked as browsers and programs ask it, on real engines."""
