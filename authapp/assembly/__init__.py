"""Builds the parts of the product from the settings, for `services`."""
