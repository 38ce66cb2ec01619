"""Handlers, one module for each resource: decode, call one service method, encode."""
