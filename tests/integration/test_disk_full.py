"""The journal's disk is full: what cannot be recorded is not served, unless configured so, and when there is room again it
goes on by itself with every count exact."""
import json
import os
import subprocess
import time

import pytest

from harness import Redis, bearer, eventually
from test_failure_ladder import COUNT, admitted, quota, statuses

DISK = "24m"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tollgate-test", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs a small file system: {mounted.stderr.strip()}")
    yield str(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    """Nothing is left."""
    path = os.path.join(folder, "ballast")
    with open(path, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
    return path


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), name="own-redis"))


def journal(folder, **more):
    return {"directory": f"{folder}/journal", "accounts": 1024, "segment_size": "1MiB", "commit_interval": "50ms", **more}


def exported(gate, crm):
    """Calls in an export of this journal."""
    out = os.path.join(gate.folder, "export")
    os.makedirs(out, exist_ok=True)
    done = gate.command_run("export", "--period", time.strftime("%Y-%m", time.gmtime()), "--format", "ndjson", "--to", out, "--journal",
                            gate.settings["journal"]["directory"], "--book", os.path.join(gate.folder, "book.sqlite"))
    assert done.returncode == 0, done.stderr
    calls = 0
    for name in os.listdir(out):
        if name.endswith(".ndjson") and not name.endswith(".licences.ndjson"):
            with open(os.path.join(out, name), encoding="utf-8") as file:
                calls += sum(json.loads(line).get("calls", 0) for line in file)
    return calls


def until_full(gate, headers, most=40_000):
    """Calls until the first 503; how many passed."""
    passed = 0
    with gate.client() as client:
        while passed < most:
            reply = client.request("GET", COUNT, headers)
            if reply.status != 200:
                assert reply.status == 503 and reply.json()["reason"] == "store_unavailable", reply
                return passed
            passed += 1
    raise AssertionError(f"{most} calls passed although the disk is full")


def test_calls_are_refused_when_they_cannot_be_recorded_and_admitted_when_there_is_room(proxy, crm, own_redis, small_disk, user, auth):
    gate = proxy(store=own_redis.url, workers=1, quotas=quota(100_000), store_settings={"flush_interval": "1s"}, journal=journal(small_disk))
    assert statuses(gate, auth, 10) == [200] * 10
    ballast = fill(small_disk)
    passed = 10 + until_full(gate, auth)
    assert gate.metric("tollgate_journal_writable") == 0
    ready = gate.admin("/readyz?verbose")
    assert ready.status == 503 and b"journal" in ready.body
    assert statuses(gate, auth, 20) == [503] * 20
    assert gate.call("GET", COUNT, bearer(user + "-new")).status == 503
    assert gate.call("GET", "/echo").status == 200  # what is not metered is served
    assert admitted(crm) == passed  # nothing went through unrecorded
    os.remove(ballast)
    eventually(lambda: gate.call("GET", COUNT, bearer(user + "-new")).status == 200, 15, "calls are admitted again")
    assert gate.admin("/readyz").status == 200 and gate.metric("tollgate_journal_writable") == 1
    assert statuses(gate, auth, 10) == [200] * 10
    passed += 10
    eventually(lambda: gate.used(auth) == passed, 15, "all calls are counted, none twice")
    assert gate.stop() == 0
    assert exported(gate, crm) == admitted(crm) == passed + 1


def test_with_continue_calls_pass_unrecorded_and_the_limit_still_holds(proxy, crm, own_redis, small_disk, auth):
    limit = 40_000
    gate = proxy(store=own_redis.url, workers=1, quotas=quota(limit), store_settings={"flush_interval": "1s"},
                 journal=journal(small_disk, on_failure="continue"))
    assert statuses(gate, auth, 10) == [200] * 10
    ballast = fill(small_disk)
    passed = 10
    with gate.client() as client:
        while passed < 20_000 and gate.metric("tollgate_journal_writable") == 1:
            for _ in range(200):
                assert client.request("GET", COUNT, auth).status == 200
            passed += 200
    assert gate.metric("tollgate_journal_writable") == 0
    assert statuses(gate, auth, 100) == [200] * 100
    passed += 100
    os.remove(ballast)
    eventually(lambda: gate.metric("tollgate_journal_writable") == 1, 15, "the journal is written again")
    assert statuses(gate, auth, 10) == [200] * 10
    passed += 10
    assert admitted(crm) == passed
    # The quota knows them all; the bill only what could be recorded.
    eventually(lambda: gate.used(auth) == passed, 15, "the quota has counted them all")
    assert gate.stop() == 0
    assert passed - 100 - 200 <= exported(gate, crm) < passed


def test_a_proxy_killed_on_a_full_disk_starts_again_and_knows_every_call(proxy, crm, own_redis, small_disk, auth):
    gate = proxy(store=own_redis.url, workers=1, quotas=quota(100_000), store_settings={"flush_interval": "1s"}, journal=journal(small_disk))
    ballast = fill(small_disk)
    passed = until_full(gate, auth)
    gate.kill()
    os.remove(ballast)
    gate.launch()
    gate.wait_ready()
    eventually(lambda: gate.used(auth) == passed, 15, "every call is found again")
    assert statuses(gate, auth, 5) == [200] * 5
    assert gate.stop() == 0
    assert exported(gate, crm) == admitted(crm) == passed + 5
