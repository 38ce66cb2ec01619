"""A thin function for each system call that lxpy makes; Python's standard library only."""
