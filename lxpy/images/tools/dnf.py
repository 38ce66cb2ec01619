"""AlmaLinux, Rocky Linux, Fedora, CentOS, by `dnf --installroot`. Source: dnf(8), rpm(8).

Options of a recipe: `repositories`, URLs separated by spaces; `key`, the file with the key that
packages are signed with (package distribution-gpg-keys has those of all distributions);
`database: export` for a guest whose rpm is too old for the database that the host's rpm writes.
"""

from __future__ import annotations

from pathlib import Path

from lxpy.errors import Failed
from lxpy.images.tools.base import Work, broken, follow, probe, silent_mirror
from lxpy.programs import run
from lxpy.threads import in_thread

_UNREACHED = ("Cannot download repomd.xml", "Curl error", "All mirrors were tried")
_OPTIONS = (
    "gpgcheck=1", "install_weak_deps=False", "tsflags=nodocs", "timeout=8", "retries=1",
    "keepcache=False", "reposdir=/dev/null",
)  # fmt: skip


async def bootstrap(work: Work) -> None:
    """Fill work.rootfs. Raises Failed or MissingTool."""
    plan = work.plan
    key = plan.option("key")
    await probe(plan, work.mirror)
    if not await in_thread(Path(key).is_file):
        raise Failed(
            f"Cannot build {plan.alias}: {key} is missing, which its packages are checked with: "
            'install package "distribution-gpg-keys"'
        )
    config = work.scratch / "dnf.conf"
    await in_thread(config.write_text, _configuration(work, key))
    ended = await follow(
        (
            "dnf", f"--config={config}", f"--installroot={work.rootfs}",
            f"--releasever={plan.version}", f"--forcearch={plan.architecture}", "--assumeyes",
            f"--setopt=cachedir={work.scratch / 'cache'}", "install", *plan.packages,
        ),
        lambda line: work.tell(line[:80]),
        package="dnf",
        purpose=f"building {plan.alias}",
    )  # fmt: skip
    if ended.status != 0:
        said = " ".join(ended.lines)
        if any(each in said for each in _UNREACHED):
            raise silent_mirror(plan, work.mirror, ended.lines[-1])
        raise broken(plan, "dnf", ended)
    if plan.option("database") == "export":
        await _rewrite_database(work)


def _configuration(work: Work, key: str) -> str:
    lines = ["[main]", *_OPTIONS]
    for number, url in enumerate(work.plan.option("repositories", work.mirror).split()):
        lines += [
            f"[lxpy-{number}]",
            f"name=lxpy-{number}",
            f"baseurl={url}",
            f"gpgkey=file://{key}",
        ]
    return "\n".join(lines) + "\n"


async def _rewrite_database(work: Work) -> None:
    """Have the guest's own rpm write the database, from what the host's rpm has noted."""
    work.tell("rewriting the package database")
    root = str(work.rootfs)
    exported = await run("rpmdb", "--root", root, "--exportdb", timeout_s=300)
    await run("chroot", root, "sh", "-c", "rm -rf /var/lib/rpm/*; rpm --initdb", timeout_s=60)
    await run("chroot", root, "rpmdb", "--importdb", input=exported.stdout, timeout_s=600)
