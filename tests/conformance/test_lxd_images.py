"""Images go between us and a real LXD, in both directions: the same bytes, the same properties."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Lxc, Lxd
from tests.images import busybox
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.tls import free_port, self_signed

COPIED = ("architecture", "created_at", "fingerprint", "properties", "size", "type")


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A unified and a split image."""
    path = tmp_path_factory.mktemp("images")
    return {
        "one": [busybox.build(path / "one.tar.gz", "exchanged")],
        "two": [*busybox.build_split(path / "meta.tar.xz", path / "rootfs.tar.gz")],
    }


@pytest.fixture
def theirs(lxd: Lxd, files: dict[str, list[Path]]) -> Iterator[dict[str, str]]:
    """Images of the real LXD by their alias: `one` is private, `two` is public."""
    lxd("image", "import", *files["one"], "--alias", "one", "colour=dark red")
    lxd("image", "import", *files["two"], "--alias", "two", "--public")
    yield {name: digest(*paths) for name, paths in files.items()}
    for name in files:
        lxd("image", "delete", name)


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """Our daemon, whose images are deleted afterwards."""
    before = set(shared_daemon.api.get("/1.0/images"))
    yield shared_daemon
    for url in set(shared_daemon.api.get("/1.0/images")) - before:
        shared_daemon.api.delete(url)


@pytest.fixture
def place(lxd: Lxd) -> dict[str, str]:
    """What names the real LXD as the source of an image."""
    certificate = lxd.certificate
    return {"type": "image", "mode": "pull", "protocol": "lxd", "server": lxd.url,
            "certificate": certificate}  # fmt: skip


def secret(lxd: Lxd, fingerprint: str) -> str:
    token = lxd.query(f"/1.0/images/{fingerprint}/secret", "-X", "POST")
    return str(token["metadata"]["secret"])


def test_pull(daemon: Daemon, lxd: Lxd, theirs: dict[str, str], place: dict[str, str]) -> None:
    """A public image by its alias, and a private one by a secret; certificate pinned."""
    source = {**place, "alias": "two"}
    done = daemon.api.post("/1.0/images", {"source": source, "auto_update": True})
    assert done["metadata"]["fingerprint"] == theirs["two"]
    found = daemon.api.get(f"/1.0/images/{theirs['two']}")
    assert found["auto_update"] and found["update_source"] == {
        "alias": "two", "certificate": lxd.certificate, "protocol": "lxd", "server": lxd.url,
        "image_type": "container",
    }  # fmt: skip
    done = daemon.api.post(f"/1.0/images/{theirs['two']}/refresh", {})
    assert done["metadata"]["refreshed"] is False
    source = {**place, "fingerprint": theirs["one"]}
    with pytest.raises(ApiError, match=f'Image "{theirs["one"]}" not found on {lxd.url}'):
        daemon.api.post("/1.0/images", {"source": source})
    source["secret"] = secret(lxd, theirs["one"])
    daemon.api.post("/1.0/images", {"source": source, "aliases": [{"name": "private"}]})
    for fingerprint in theirs.values():
        same(daemon.api.get(f"/1.0/images/{fingerprint}"),
             lxd.query(f"/1.0/images/{fingerprint}"))  # fmt: skip
    assert "update_source" not in daemon.api.get(f"/1.0/images/{theirs['one']}")


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert {key: one[key] for key in COPIED} == {key: other[key] for key in COPIED}


def test_pull_from_a_stranger(
    daemon: Daemon, theirs: dict[str, str], place: dict[str, str], tmp_path: Path
) -> None:
    """A certificate that is not the server's, or none at all, and nothing is asked for."""
    own = self_signed(tmp_path / "stranger.pem")
    for certificate, text in ((own, "Cannot trust https"), ("", "CERTIFICATE_VERIFY_FAILED")):
        source = {**place, "alias": "two", "certificate": certificate}
        with pytest.raises(ApiError, match=text):
            daemon.api.post("/1.0/images", {"source": source})
    with pytest.raises(ApiError, match="Invalid certificate"):
        daemon.api.post("/1.0/images", {"source": {**place, "alias": "two", "certificate": "x"}})


def test_instance_from_a_remote_image(
    daemon: Daemon, theirs: dict[str, str], place: dict[str, str]
) -> None:
    name = daemon.name()
    try:
        source = {**place, "alias": "two"}
        daemon.api.post("/1.0/instances", {"name": name, "source": source})
        assert daemon.api.get(f"/1.0/images/{theirs['two']}")["cached"]
        daemon.api.put(f"/1.0/instances/{name}/state", {"action": "start"})
        assert daemon.out(name, "hostname") == name
    finally:
        daemon.delete(name)


@pytest.mark.parametrize("name", ["one", "two"])
def test_push(daemon: Daemon, lxd: Lxd, files: dict[str, list[Path]], name: str) -> None:
    """The real LXD hands out a token, we send the image; it is what it was."""
    fingerprint = digest(*files[name])
    daemon.lxpy("image", "import", *files[name], "--alias", name, "more=here")
    ours = daemon.api.get(f"/1.0/images/{fingerprint}")
    request = {"source": {"mode": "push", "fingerprint": fingerprint},
               "properties": ours["properties"], "aliases": [{"name": "pushed"}]}  # fmt: skip
    token = lxd.query("/1.0/images", "-X", "POST", "-d", json.dumps(request))
    body = {"target": lxd.url, "certificate": lxd.certificate,
            "secret": token["metadata"]["secret"]}  # fmt: skip
    with pytest.raises(ApiError, match="not authorized"):
        daemon.api.post(f"/1.0/images/{fingerprint}/export", {**body, "secret": "wrong"})
    done = daemon.api.post(f"/1.0/images/{fingerprint}/export", body)
    assert done["metadata"]["upload_progress"].startswith("image: 100%")
    try:
        there = lxd.query(f"/1.0/images/{fingerprint}")
        same(ours, there)
        assert there["aliases"] == [{"name": "pushed", "description": ""}]
    finally:
        lxd("image", "delete", fingerprint)


@pytest.fixture(scope="module")
def ours(shared_daemon: Daemon, lxd: Lxd) -> Iterator[str]:
    """Our daemon on the network; LXD's client knows it as `ours:`, and LXD itself as `lxd:`."""
    url = f"127.0.0.1:{free_port()}"
    config = {"core.https_address": url, "core.trust_password": "sesame"}
    shared_daemon.api.patch("/1.0", {"config": config})
    lxd("config", "set", "core.trust_password", "sesame")
    for name, address in (("ours", f"https://{url}"), ("lxd", lxd.url)):
        lxd("remote", "add", name, address, "--accept-certificate", "--password", "sesame")
    yield "ours"
    for name in ("ours", "lxd"):
        lxd("remote", "remove", name)
    shared_daemon.api.patch("/1.0", {"config": dict.fromkeys(config, "")})
    for url in shared_daemon.api.get("/1.0/certificates"):
        shared_daemon.api.delete(url)


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_lxc_copies_in_both_directions(
    daemon: Daemon, lxd: Lxd, ours: str, files: dict[str, list[Path]], mode: str
) -> None:
    """From LXD to us, and from us to LXD, unified and split; aliases come along."""
    for source, target in (("lxd", "ours"), ("ours", "lxd")):
        for name, paths in files.items():
            fingerprint, alias = digest(*paths), f"{mode}/{name}"
            lxd("image", "import", *paths, f"{source}:", "--alias", alias)
            try:
                words = (f"{source}:{alias}", f"{target}:", "--mode", mode, "--copy-aliases")
                lxd("image", "copy", *words, "--alias", f"{name}-copy")
                there = lxd.query(f"{target}:/1.0/images/{fingerprint}")
                same(there, lxd.query(f"{source}:/1.0/images/{fingerprint}"))
                names = sorted(each["name"] for each in there["aliases"])
                assert names == sorted([alias, f"{name}-copy"])
                assert there["public"] is False and there["auto_update"] is False
            finally:
                for remote in (source, target):
                    lxd.run("image", "delete", f"{remote}:{fingerprint}")


@pytest.mark.parametrize("name", ["one", "two"])
def test_instances_of_images_elsewhere(
    daemon: Daemon, lxd: Lxd, ours: str, files: dict[str, list[Path]], name: str
) -> None:
    """`lxc init OTHER:IMAGE` in both directions: the target fetches by a secret."""
    fingerprint = digest(*files[name])
    for source, target in (("lxd", "ours"), ("ours", "lxd")):
        lxd("image", "import", *files[name], f"{source}:")
        try:
            lxd("init", f"{source}:{fingerprint[:12]}", f"{target}:from-{source}")
            config = lxd.query(f"{target}:/1.0/instances/from-{source}")["config"]
            assert config["volatile.base_image"] == fingerprint
            assert lxd.query(f"{target}:/1.0/images/{fingerprint}")["cached"]
        finally:
            lxd.run("delete", f"{target}:from-{source}")
            for remote in (source, target):
                lxd.run("image", "delete", f"{remote}:{fingerprint}")


@pytest.fixture
def neighbour(daemon: Daemon, lxd: Lxd) -> Iterator[str]:
    """The real LXD as our command line knows it, by its socket; it listens on the network, too."""
    conf = Path(daemon.environment["LXPY_CONF"]) / "config.yml"
    address = f"unix://{lxd.directory}/unix.socket"
    conf.write_text(f"remotes: {{lxd: {{addr: '{address}', protocol: lxd}}}}\n")
    yield "lxd:"
    conf.unlink()


@pytest.mark.parametrize(
    ("source", "target", "modes"),
    [
        ("lxd:", "local:", ((), ("--mode", "relay"))),
        ("local:", "lxd:", (("--mode", "push"), ())),
    ],
)
def test_lxpy_copies_in_both_directions(
    daemon: Daemon, lxd: Lxd, neighbour: str, files: dict[str, list[Path]],
    source: str, target: str, modes: tuple[tuple[str, ...], ...],
) -> None:  # fmt: skip
    for (name, paths), mode in itertools.product(files.items(), modes):
        fingerprint = digest(*paths)
        daemon.lxpy("image", "import", *paths, source, "--alias", name, "k=v w")
        try:
            daemon.lxpy("image", "copy", f"{source}{name}", target, *mode, "--copy-aliases")
            url = f"/1.0/images/{fingerprint}"
            here, there = daemon.api.get(url), lxd.query(url)
            same(here, there)
            assert here["aliases"] == there["aliases"] and here["properties"]["k"] == "v w"
        finally:
            for remote in (source, target):
                daemon.lxpy("image", "delete", f"{remote}{fingerprint}", check=False)
    assert lxd.query("/1.0/operations").get("running") is None


def test_lxpy_launches_images_of_lxd(
    daemon: Daemon, lxd: Lxd, neighbour: str, theirs: dict[str, str]
) -> None:
    name = daemon.name()
    try:
        daemon.lxpy("launch", "lxd:one", f"local:{name}")
        assert daemon.out(name, "hostname") == name
        assert daemon.api.get(f"/1.0/images/{theirs['one']}")["cached"]
        # the image is here already: the secret is not used, and does not stay
        daemon.lxpy("image", "copy", "lxd:one", "local:")
        assert not daemon.api.get(f"/1.0/images/{theirs['one']}")["cached"]
        assert "running" not in lxd.query("/1.0/operations")
        listed = daemon.lxpy("image", "list", neighbour, "-f", "csv", "-c", "l").stdout
        assert listed.split() == ["one", "two"]
    finally:
        daemon.delete(name)


LOOK = (
    ("list", "shown", "-f", "csv", "-c", "lLfFpdast"),
    ("list", "k=v", "-f", "compact", "-c", "f"),
    ("list", "k=other", "-f", "csv"),
    ("list", "shown"),
    ("alias", "list", "shown", "-f", "csv"),
    ("alias", "list", "nothing"),
    ("show", "shown/one"),
    ("info", "shown/two"),
    ("get-property", "shown/two", "os"),
)


def test_shown_as_lxd_shows_it(
    daemon: Daemon, lxc: Lxc, lxd: Lxd, files: dict[str, list[Path]]
) -> None:
    """`lxc image` prints the same of us and of LXD, and `lxpy image` prints what `lxc` does."""
    for client in (lxd, lxc):
        for name, paths in files.items():
            client("image", "import", *paths, "--alias", f"shown/{name}", "k=v")
    try:
        for words in LOOK:
            out = plain(lxc("image", *words))
            assert out == plain(lxd("image", *words)), words
            assert out == plain(daemon.lxpy("image", *words).stdout), words
    finally:
        for client in (lxd, lxc):
            for name in files:
                client("image", "delete", f"shown/{name}")


def plain(text: str) -> list[str]:
    """Lines without their order (properties have none) and without times of day."""
    return sorted(
        re.sub(r"\d+:\d\d(am|pm)?", "TIME", line) for line in text.replace("-", "").splitlines()
    )
