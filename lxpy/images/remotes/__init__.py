"""Where images come from when this host has none: servers of images."""
