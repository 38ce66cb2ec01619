"""Work in the background that clients can watch, wait for and cancel."""
