"""Proofs of coherence: interleavings, real faults, clusters."""
