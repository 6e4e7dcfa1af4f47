"""Real instances under load: races, and faults that come at random."""
