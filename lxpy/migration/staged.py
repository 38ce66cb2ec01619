"""A program: run rsync on a tree that only it sees in one place, and nothing else can be written.

    staged.py TOP BELOW TREE send|receive PROGRAM ARGUMENTS...

TREE is a descriptor of a mount without a name, which is attached at TOP/BELOW (BELOW may be
"."). All of the host is read only here but TOP and the tree, whatever the other server sends: this
process has a mount namespace of its own. As a sender, rsync speaks to descriptors 3 and 4, which
are our standard input and output. Python's own library and `lxpy.kernel` only.
"""

from __future__ import annotations

import os
import sys

from lxpy.kernel import mounts, namespaces


def main() -> None:
    """Attach the tree and become the program."""
    top, below, tree, role, *command = sys.argv[1:]
    namespaces.unshare(namespaces.NEWNS, "mounts")
    mounts.make_private()
    own = mounts.clone_tree(top)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.set_attributes(root, "/", mounts.RDONLY, recursive=True)
    if below != ".":
        mounts.attach(own, top, path=top)
    mounts.attach(int(tree), below, path=os.path.normpath(os.path.join(top, below)))
    if role == "send":
        os.dup2(0, 3)
        os.dup2(1, 4)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
