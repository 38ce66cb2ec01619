"""AlmaLinux, Rocky Linux, Fedora, CentOS, by `dnf --installroot`. Source: dnf(8), rpm(8).

Options of a recipe: `repositories`, URLs separated by spaces; `key`, the file with the key that
packages are signed with (package distribution-gpg-keys has those of all distributions);
`database_path` where it is not /var/lib/rpm; `database: export` for a guest whose rpm is too old
for the database that the host's rpm writes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lxpy.errors import Failed
from lxpy.images.tools.base import Work, broken, follow, probe, silent_mirror
from lxpy.programs import run
from lxpy.threads import in_thread

_UNREACHED = ("Cannot download repomd.xml", "Curl error", "All mirrors were tried")
_CACHE = "/var/cache/dnf"  # below the new root file system
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
    # A host of another family has its own idea of where rpm keeps the database: tell ours.
    await in_thread((work.scratch / ".rpmmacros").write_text, f"%_dbpath {_database(work)}\n")
    ended = await follow(
        (
            "dnf", f"--config={config}", f"--installroot={work.rootfs}",
            f"--releasever={plan.version}", f"--forcearch={plan.architecture}", "--assumeyes",
            f"--setopt=cachedir={_CACHE}", "install", *plan.packages,
        ),
        lambda line: work.tell(line[:80]),
        package="dnf",
        purpose=f"building {plan.alias}",
        env=_home(work),
    )  # fmt: skip
    if ended.status != 0:
        said = " ".join(ended.lines)
        if any(each in said for each in _UNREACHED):
            causes = [line[2:] for line in ended.lines if line.startswith("- ")]
            raise silent_mirror(plan, work.mirror, causes[0] if causes else ended.lines[-1])
        raise broken(plan, "dnf", ended)
    await in_thread(_clean, work.rootfs)
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


def _clean(rootfs: Path) -> None:
    """Remove what the host's dnf left: its cache and its logs (blocking)."""
    shutil.rmtree(rootfs / _CACHE.lstrip("/"), ignore_errors=True)
    for pattern in ("dnf*.log", "hawkey.log"):
        for path in (rootfs / "var/log").glob(pattern):
            path.unlink()


def _database(work: Work) -> str:
    return work.plan.option("database_path") or "/var/lib/rpm"


def _home(work: Work) -> dict[str, str]:
    return {"HOME": str(work.scratch)}  # where .rpmmacros is


async def _rewrite_database(work: Work) -> None:
    """Have the guest's own rpm write the database, from what the host's rpm has noted."""
    work.tell("rewriting the package database")
    root, database = str(work.rootfs), _database(work)
    exported = await run("rpmdb", "--root", root, "--exportdb", timeout_s=300, env=_home(work))
    await run("chroot", root, "sh", "-c", f"rm -rf {database}/*; rpm --initdb", timeout_s=60)
    await run("chroot", root, "rpmdb", "--importdb", input=exported.stdout, timeout_s=600)
