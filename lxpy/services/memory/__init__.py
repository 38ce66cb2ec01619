"""The memory of instances, saved and taken up again by CRIU."""
