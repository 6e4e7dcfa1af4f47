"""Sessions: begin, find, change, end and list them, and the maintenance of their table."""
