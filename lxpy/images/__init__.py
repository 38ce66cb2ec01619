"""Images: kept by fingerprint, unpacked once per pool, fetched or built when they are missing.

Nothing is imported here: the unpacking program starts with this package and must be light.
"""
