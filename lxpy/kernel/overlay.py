"""How overlays are mounted, and what they note beside files: in a user namespace not as on a host.

Source: kernel docs, "Overlay Filesystem", "User xattr", "Index", "NFS export".
"""

from __future__ import annotations

from lxpy.kernel import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.kernel.mounts import Options

#: nfs_export lets CRIU dump inotify watches; it excludes metacopy.
_ON_HOST: Options = {"index": "on", "nfs_export": "on", "redirect_dir": "on"}
_WITHOUT_INDEX: Options = {"index": "off", "nfs_export": "off", "redirect_dir": "on"}
_READ_ONLY: Options = {"redirect_dir": "follow"}
#: There the kernel has neither index nor redirects: a directory of the image is renamed by copying.
_NESTED: Options = {"userxattr": None}


def options(*, index: bool = True) -> Options:
    """Return the options of an overlay that is written to.

    Without `index` a file of the image with several names is written as if it had one: for when
    an image was replaced by an equal one, which the index does not fit any more (ESTALE).
    """
    if namespaces.is_nested():
        return _NESTED
    return _ON_HOST if index else _WITHOUT_INDEX


def read_only_options() -> Options:
    """Return the options of an overlay without a writable layer."""
    return _NESTED if namespaces.is_nested() else _READ_ONLY


def attribute(name: str) -> str:
    """Return the extended attribute that overlayfs has for `name` ("opaque"; "" for all)."""
    return f"{'user' if namespaces.is_nested() else 'trusted'}.overlay.{name}"
