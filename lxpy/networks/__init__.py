"""Managed networks and the interfaces that join instances to them.

Values in, values out: no request, no database, no instance is seen here.
"""
