"""Tests of lxpy.storage."""
