"""Alpine Linux, by its own apk. Source: apk(8).

Options of a recipe: `repositories`, URLs separated by spaces; `keys`, the directory with the keys
that packages are signed with. Without `images.mirror.alpine` the host's own /etc/apk/repositories
tells the mirror, which is there on a host that runs Alpine.
"""

from __future__ import annotations

import re
from pathlib import Path

from lxpy.errors import Failed
from lxpy.images.tools.base import Work, broken, follow, probe, silent_mirror
from lxpy.threads import in_thread

_HOST = Path("/etc/apk/repositories")
_UNREACHED = ("temporary error", "network error", "network connection", "DNS", "timed out")


async def bootstrap(work: Work) -> None:
    """Fill work.rootfs. Raises Failed or MissingTool."""
    plan = work.plan
    mirror = work.mirror or await in_thread(_mirror_of_host)
    if not mirror:
        raise Failed(
            f"Cannot build {plan.alias}: no package mirror is known, set the server's key "
            f"images.mirror.{plan.distribution}"
        )
    await probe(plan, mirror)
    repositories = plan.option("repositories", mirror).split()
    ended = await follow(
        (
            "apk", "--root", str(work.rootfs), "--initdb", "--no-cache", "--arch",
            plan.architecture, "--keys-dir", plan.option("keys"),
            *(word for each in repositories for word in ("--repository", each)),
            "add", *plan.packages,
        ),
        lambda line: work.tell(line[:80]),
        package="apk-tools",
        purpose=f"building {plan.alias}",
    )  # fmt: skip
    if ended.status != 0:
        said = " ".join(ended.lines)
        if any(each in said for each in _UNREACHED):
            raise silent_mirror(plan, mirror, ended.lines[-1])
        raise broken(plan, "apk", ended)
    text = "".join(f"{each}\n" for each in repositories)
    await in_thread((work.rootfs / "etc/apk/repositories").write_text, text)


def _mirror_of_host() -> str:
    """Return the mirror that the host installs from: what stands before "/v3.20/main"."""
    try:
        lines = _HOST.read_text().split()
    except OSError:
        return ""
    for line in lines:
        match = re.fullmatch(r"(https?://\S+?)/(?:v\d+\.\d+|edge|latest-stable)/main/?", line)
        if match:
            return match[1]
    return ""
