"""Instances to and from other servers, by LXD's protocol."""
