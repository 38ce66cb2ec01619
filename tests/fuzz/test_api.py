"""Requests that schemathesis makes of the API's description: none breaks the daemon.

Each operation gets its share of LXPY_FUZZ requests (20000), half of them as the description says,
half against it. A name in a path is often one that exists. Whatever the reply, it comes in time,
is no error inside the daemon, and has the shape that the description says.

The daemon has a directory, bridge and control group of its own. `harmless` keeps from it what would
reach the host's disks, cards or other servers.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from requests import RequestException  # noqa: E402

from tests.fuzz.unix import session  # noqa: E402

pytestmark = [pytest.mark.timeout(7200), pytest.mark.filterwarnings("ignore")]

REQUESTS = int(os.environ.get("LXPY_FUZZ", "20000"))
SEED = int(os.environ.get("LXPY_FUZZ_SEED", "1"))
LIMIT_S = 60.0
#: operations that do not end by themselves: streams, long waits
ENDLESS = {"/1.0/events", "/1.0/operations/{id}/wait", "/1.0/operations/{id}/websocket"}
NAMES = {
    "name": ["fuzz-runs", "fuzz-stopped", "default", "fuzz-none"],
    "pool": ["default", "fuzz-pool"],
    "type": ["custom", "container"],
    "volume": ["fuzz-volume", "fuzz-stopped"],
    "snapshot": ["snap0"],
    "backup": ["backup0"],
    "file": ["lxc.log"],
}
#: fields whose values could name what belongs to the host or to others
HOSTILE = {"source", "parent", "server", "url", "target", "operation", "core.https_address"}
HOSTS_LINKS = set(os.listdir("/sys/class/net"))


@pytest.fixture(scope="module")
def fuzzed(work_directory: Path, commands: Path, busybox_image: Path) -> Iterator[Daemon]:
    """A daemon with an object of each kind, removed with all that the requests made."""
    daemon = Daemon(work_directory / "fuzz", commands)
    try:
        daemon.start()
        import_image(daemon, busybox_image, "fuzz")
        for name in ("fuzz-runs", "fuzz-stopped"):
            create(daemon, "fuzz", name)
            daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "snap0"})
        change(daemon, "fuzz-runs", "start")
        daemon.api.post("/1.0/storage-pools/default/volumes/custom", {"name": "fuzz-volume"})
        yield daemon
        daemon.shutdown()
    finally:
        daemon.destroy()


def clean(value: Any) -> Any:
    """Return a JSON value without the fields that reach out of the daemon's own directory."""
    if isinstance(value, dict):
        return {
            key: clean(each)
            for key, each in value.items()
            if not (key in HOSTILE and isinstance(each, str))
        }
    return [clean(each) for each in value] if isinstance(value, list) else value


def harmless(body: Any) -> Any:
    """Return a body that may be sent."""
    if isinstance(body, dict) and body.get("name") in HOSTS_LINKS:
        body = {**body, "name": "fuzz-none"}
    return clean(body)


class Fuzz:
    """Sends cases and judges replies."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.session = session(daemon.socket)
        self.sent = 0
        self.statuses: Counter[int] = Counter()
        self.wrong: dict[str, str] = {}

    def send(self, case: Any) -> None:
        """Send one case; note what is wrong with the reply."""
        label = f"{case.method} {case.path}"
        if case.body is not None and not isinstance(case.body, bytes):
            case.body = harmless(case.body)
        self.sent += 1
        try:
            reply = case.call(base_url="http://lxd", session=self.session, timeout=LIMIT_S)
        except (ValueError, UnicodeError, TypeError):
            return  # nothing that could be sent
        except RequestException as error:
            if not self.daemon.running:
                raise AssertionError(f"{label} ended the daemon:\n{self.daemon.tail()}") from error
            if "timed out" in str(error).lower():
                self._note(label, case, f"no reply within {LIMIT_S} s")
            return
        self.statuses[reply.status_code] += 1
        self._judge(label, case, reply)

    def _judge(self, label: str, case: Any, reply: Any) -> None:
        kind = reply.headers.get("content-type", [""])[0]
        if reply.status_code >= 400 and case.method != "HEAD":
            try:
                text = json.loads(reply.content)
            except ValueError:
                if reply.status_code != 400:  # HTTP itself was broken, which the library tells
                    self._note(label, case, f"{reply.status_code} without an envelope")
                return
            if text["type"] != "error" or text["error_code"] != reply.status_code:
                self._note(label, case, f"a wrong envelope: {text}")
            if "Internal error" in text["error"]:
                self._note(label, case, text["error"])
        elif kind.startswith("application/json") and reply.status_code < 300:
            try:
                case.operation.validate_response(reply)
            except Exception as error:
                self._note(label, case, f"does not conform: {str(error)[:600]}")

    def _note(self, label: str, case: Any, text: str) -> None:
        self.wrong.setdefault(
            f"{label}: {text.split('request ')[0][:80]}", f"{text}\n  {describe(case)}"
        )


def describe(case: Any) -> str:
    """A case in a line."""
    return f"path {case.path_parameters} query {case.query} body {str(case.body)[:600]}"


def aim(case: Any, choice: int) -> None:
    """Put the name of something that exists into most paths."""
    for key in list(case.path_parameters or {}):
        known = NAMES.get(key)
        if known and choice % 4:
            case.path_parameters[key] = known[choice % len(known)]


def fuzz_operation(fuzz: Fuzz, operation: Any, mode: Any, count: int) -> None:
    """Send `count` requests of one operation."""

    @seed(SEED)
    @settings(
        max_examples=max(1, count), deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), choice=st.integers(0, 11))
    def sends(case: Any, choice: int) -> None:
        aim(case, choice)
        fuzz.send(case)

    sends()


def test_api(fuzzed: Daemon) -> None:
    description = json.loads(fuzzed.api.raw("GET", "/1.0/openapi.json")[2])
    schema = schemathesis.openapi.from_dict(description)
    operations = [
        each for result in schema.get_all_operations()
        if (each := result.ok()).path not in ENDLESS
    ]  # fmt: skip
    fuzz = Fuzz(fuzzed)
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    share = -(-REQUESTS // (2 * len(operations)))
    left_over: list[str] = []
    for operation in operations:
        for mode in modes:
            before = fuzz.sent
            try:
                fuzz_operation(fuzz, operation, mode, share)
            except AssertionError:
                raise
            except Exception as error:  # nothing contradicts it, such as a list without parameters
                left_over.append(f"{operation.label} {mode}: {type(error).__name__}: {error}"[:200])
            if mode is modes[1] and (missing := share - (fuzz.sent - before)) > 0:
                fuzz_operation(fuzz, operation, modes[0], missing)
    for operation in operations:  # what those without parameters did not take
        if (missing := REQUESTS - fuzz.sent) > 0:
            fuzz_operation(fuzz, operation, modes[0], min(missing, share))
    print(f"{fuzz.sent} requests, {dict(fuzz.statuses)}; without {len(left_over)}: {left_over[:5]}")
    assert not fuzz.wrong, "\n".join(fuzz.wrong.values())
    assert fuzz.sent >= REQUESTS
    assert fuzzed.api.get("/1.0")["auth"] == "trusted"
