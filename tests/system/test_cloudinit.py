"""cloud-init inside instances: it takes its data from /dev/lxd."""

from __future__ import annotations

import pytest

from tests.images import distributions
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

pytestmark = [pytest.mark.slow, pytest.mark.distribution, pytest.mark.timeout(900)]

USER_DATA = """#cloud-config
hostname: from-user-data
write_files:
- path: /root/written
  content: by cloud-init
ssh_authorized_keys:
- ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDexamplekeyexamplekeyexamplekeyexample test
runcmd:
- [sh, -c, "echo again >>/root/runs"]
"""


@pytest.fixture(scope="module")
def cloud(shared_daemon: Daemon) -> str:
    return distributions.provide(shared_daemon, "debian/13/cloud")


def finished(daemon: Daemon, name: str) -> str:
    return daemon.out(name, "cloud-init", "status", "--wait", "--long", check=False)


def test_user_data_is_carried_out(daemon: Daemon, launch: Launch, cloud: str) -> None:
    vendor = "#cloud-config\ntimezone: Asia/Tokyo\n"
    name = launch(
        cloud, config={"cloud-init.user-data": USER_DATA, "cloud-init.vendor-data": vendor}
    )
    said = finished(daemon, name)
    assert "status: done" in said and "LXD" in said, said
    assert daemon.out(name, "cat", "/root/written") == "by cloud-init"
    assert daemon.out(name, "readlink", "/etc/localtime").endswith("Asia/Tokyo")
    assert daemon.out(name, "hostname") == "from-user-data"
    assert "examplekey" in daemon.out(name, "sh", "-c", "cat ~root/.ssh/* /home/*/.ssh/*")
    assert daemon.out(name, "cat", "/root/runs") == "again"
    assert daemon.address(name)
    # Once; and again when its data are others, as it is another instance then.
    change(daemon, name, "restart", force=False)
    finished(daemon, name)
    assert daemon.out(name, "cat", "/root/runs") == "again"
    daemon.api.patch(
        f"/1.0/instances/{name}", {"config": {"cloud-init.user-data": USER_DATA + "\n# other\n"}}
    )
    change(daemon, name, "restart", force=False)
    finished(daemon, name)
    assert daemon.out(name, "cat", "/root/runs") == "again\nagain"


def test_old_keys_and_network_config(daemon: Daemon, launch: Launch, cloud: str) -> None:
    network = "version: 2\nethernets:\n  eth0:\n    dhcp4: true\n    addresses: [192.0.2.77/32]\n"
    name = launch(cloud, config={"user.user-data": USER_DATA, "cloud-init.network-config": network})
    finished(daemon, name)
    assert daemon.out(name, "cat", "/root/written") == "by cloud-init"
    assert "192.0.2.77" in daemon.out(name, "ip", "-4", "address", "show", "eth0")
