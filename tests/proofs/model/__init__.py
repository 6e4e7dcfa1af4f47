"""The change protocol, tried in every order of its steps."""
