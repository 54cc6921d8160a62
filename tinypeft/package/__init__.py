"""The adapter package: what is in one, which firmware takes it, signatures, and deltas between two."""
