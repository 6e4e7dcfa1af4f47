"""Mail: what is written to people, the links in it, and how it leaves."""
