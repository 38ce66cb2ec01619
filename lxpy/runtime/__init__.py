"""A `Spec` becomes a running system; Python's standard library only."""
