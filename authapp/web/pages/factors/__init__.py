"""The pages of factors."""
