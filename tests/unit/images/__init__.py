"""Tests of lxpy.images."""
