"""Figures of lxpy beside LXD's, from one run on one machine."""
