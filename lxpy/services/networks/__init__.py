"""Networks, nics, their policies."""
