"""The matrix of what can be saved with its memory, by guests and set-ups."""
