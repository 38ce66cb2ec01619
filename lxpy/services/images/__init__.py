"""Images: where they come from, what is kept of them, what is made of instances."""
