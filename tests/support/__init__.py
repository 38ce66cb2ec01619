"""What system and conformance tests share: a real daemon, its API, its command line, leaks."""
