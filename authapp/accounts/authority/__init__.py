"""Authority: roles, and what they allow the actor of a change."""
