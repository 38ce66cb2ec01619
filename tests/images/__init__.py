"""Images that the tests boot: a tiny one, and full distributions, built once."""
