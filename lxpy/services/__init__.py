"""Use cases: the only layer that opens a transaction and takes an instance's lock."""
