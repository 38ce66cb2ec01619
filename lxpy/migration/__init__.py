"""LXD's protocol for instances and volumes on their way between servers: messages and streams.

Source: LXD docs, "REST API", "Migration"; what is not there was seen on the wire of LXD 5.0.2.
"""
