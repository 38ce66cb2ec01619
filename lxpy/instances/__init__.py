"""What an instance is: pure rules, no I/O. Values in, values out."""
