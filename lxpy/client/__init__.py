"""What the command line knows of a server: HTTP and websockets over its unix socket, remotes.

Everything here is synchronous and imports only small parts of Python's own library, no typing and
no dataclasses among them: a command like `lxpy exec` is over in less time than aiohttp, click or
http.client take to be imported. See docs/adr/ for the figures.
"""
