"""The command line: verbs, flags, texts and exit codes of LXD's `lxc`, over the REST API alone.

A module for each noun declares its commands with click (root.py lists them), and help, completion
and manual page come from these declarations. `exec` and `list` are also reached without click, see
fast.py.
"""
