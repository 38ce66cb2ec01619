"""Tests of lxpy.db."""
