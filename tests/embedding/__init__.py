"""Apps of other people, as they write them, that take authapp in."""
