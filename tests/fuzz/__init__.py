"""Generated requests against a daemon of their own."""
