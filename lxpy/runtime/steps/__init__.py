"""The steps by which a forked child becomes a container; each runs in the child alone."""
