"""A simplestreams server on loopback, for tests: the tree, and what answers requests."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Tree:
    """A directory that is served: images are added, product by product, version by version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.products: dict[str, Any] = {}
        (root / "streams/v1").mkdir(parents=True)
        self.write()

    def unified(self, name: str, serial: str, image: Path, **fields: Any) -> str:
        """Add a unified image; its fingerprint."""
        item = self._file(f"{name}/{serial}/image.tar.gz", image)
        item["ftype"] = "lxd_combined.tar.gz"
        self._add(name, serial, {"lxd_combined.tar.gz": item}, fields)
        return str(item["sha256"])

    def split(self, name: str, serial: str, meta: Path, rootfs: Path, **fields: Any) -> str:
        """Add an image of two files; its fingerprint."""
        combined = hashlib.sha256(meta.read_bytes() + rootfs.read_bytes()).hexdigest()
        first = self._file(f"{name}/{serial}/lxd.tar.xz", meta)
        first |= {"ftype": "lxd.tar.xz", "combined_rootxz_sha256": combined}
        second = self._file(f"{name}/{serial}/root.tar.xz", rootfs)
        second["ftype"] = "root.tar.xz"
        self._add(name, serial, {"lxd.tar.xz": first, "root.tar.xz": second}, fields)
        return combined

    def write(self) -> None:
        """Write index and products."""
        index = {
            "format": "index:1.0",
            "index": {
                "images": {
                    "datatype": "image-downloads",
                    "path": "streams/v1/images.json",
                    "format": "products:1.0",
                    "products": list(self.products) or ["none"],
                },
                "other": {"datatype": "something-else", "path": "nowhere.json", "products": ["x"]},
            },
        }
        products = {"format": "products:1.0", "products": self.products}
        (self.root / "streams/v1/index.json").write_text(json.dumps(index))
        (self.root / "streams/v1/images.json").write_text(json.dumps(products))

    def _file(self, path: str, source: Path) -> dict[str, Any]:
        target = self.root / "images" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = source.read_bytes()
        target.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        return {"path": f"images/{path}", "size": len(data), "sha256": digest}

    def _add(self, name: str, serial: str, items: dict[str, Any], fields: dict[str, Any]) -> None:
        product = self.products.setdefault(
            name,
            {
                "aliases": f"{name},{name}/default",
                "arch": "amd64",
                "os": "Tiny",
                "release": "one",
                "release_title": "One",
                "versions": {},
                **fields,
            },
        )
        product["versions"][serial] = {"items": items}
        self.write()


class Server:
    """What `serve` yields: the server's address, and the paths that were asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []


class _Handler(SimpleHTTPRequestHandler):
    seen: Server
    more: Mapping[str, str]

    def log_message(self, format: str, *args: Any) -> None:
        self.seen.paths.append(self.path)

    def end_headers(self) -> None:
        for name, value in self.more.items():
            own = f"{self.seen.url}{self.path}"
            self.send_header(name, own if value == "SELF" else value)
        super().end_headers()


@contextmanager
def serve(
    root: Path, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Serve a directory on loopback; a header with the value "SELF" gets the file's own URL."""
    handler = type("Handler", (_Handler,), {"more": headers or {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    scheme = "http"
    if tls is not None:
        scheme, server.socket = "https", tls.wrap_socket(server.socket, server_side=True)
    seen = handler.seen = Server(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
