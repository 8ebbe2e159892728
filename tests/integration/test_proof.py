"""Proof by count: what the proxies billed is what the upstream received, after every kind of death; changes of limits act at
once and forget nothing; a store that stands still is not felt by those who hold leases."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from harness import PATIENCE, ROOT, Redis, Standin, bearer, eventually
from http1 import Closed, render
from test_failure_ladder import COUNT, admitted, quota, spend, statuses

KEEN = {"ping_interval": "1s", "flush_interval": "1s"}


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), name="own-redis", extra=["--appendonly", "yes"]))


# ---------------------------------------------------------------- deaths under load

def test_five_kills_under_load_lose_no_call_and_bill_none_twice(proxy, crm, own_redis, user, tmp_path):
    gate = proxy(store=own_redis.url, quotas=quota(1_000_000), store_settings=KEEN)
    headers = [bearer(f"{user}-{i}") for i in range(6)]
    stop, answered, odd = threading.Event(), [0] * 6, []

    def load(index):
        while not stop.is_set():
            try:
                with gate.client() as client:
                    while not stop.is_set():
                        status = client.request("GET", COUNT, headers[index]).status
                        answered[index] += status == 200
                        if status not in (200, 503):
                            odd.append(status)
            except (OSError, Closed):
                stop.wait(0.01)

    threads = [threading.Thread(target=load, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            before = sum(answered)
            eventually(lambda: sum(answered) > before + 200, 20, "there is load")
            gate.kill()
            gate.launch()
            gate.wait_ready()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not odd, odd
    verified = gate.command_run("export", "--verify", "-c", gate.config_path, "--book", str(tmp_path / "book.sqlite"))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert gate.stop() == 0
    calls, interrupted = gate.billed(str(tmp_path))
    # A death between the note that a call goes out and its way out is billed as interrupted: the call may have arrived.
    assert calls - interrupted <= admitted(crm) <= calls
    assert admitted(crm) >= sum(answered) > 1000
    assert calls - sum(answered) <= interrupted + 5 * 6  # those whose answers died with the connection


def test_calls_that_no_rule_limits_are_not_lost_either(proxy, start, own_redis, user, tmp_path):
    """They are billed all the same: written down before they are sent, and refused when they cannot be."""
    origin = start(Standin(str(tmp_path), name="slow-crm"))
    gate = proxy(upstream=origin.url, store=own_redis.url, quotas=[])
    assert gate.call("GET", COUNT, bearer(user)).status == 200
    origin.settings(fault="stall")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(gate.client()).send(render("GET", COUNT, bearer(user)))
        eventually(lambda: admitted(origin) == 6, 10, "all are on their way")
        gate.kill()
    gate.launch()
    gate.wait_ready()
    assert gate.stop() == 0
    assert gate.billed(str(tmp_path)) == (6, 5)


def test_staff_that_a_rule_binds_is_not_billed(proxy, crm, own_redis, user, tmp_path):
    rules = quota(1_000_000) + [{"name": "all", "limit": 10, "window": "24h", "per": ["organization"], "on": "all", "staff": True},
                                {"name": "trial", "limit": 10, "window": "24h", "per": ["user"], "on": "all", "staff": True,
                                 "mode": "shadow"}]
    gate = proxy(store=own_redis.url, quotas=rules)
    staff = bearer(user, user_type="staff")
    assert [gate.call("GET", COUNT, staff).status for _ in range(3)] == [200] * 3
    assert gate.stop() == 0
    assert gate.billed(str(tmp_path)) == (0, 0)


@pytest.mark.slow
def test_a_storm_of_deaths_and_failovers_leaves_books_that_agree():
    """Three proxies, replication that lags, everybody dies now and then: tests/endurance/storm.py, small."""
    command = [sys.executable, os.path.join(ROOT, "tests/endurance/storm.py"), "--calls", "20000", "--seconds", "15", "--pause", "2",
               "--users", "60", "--clients", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240 * PATIENCE, check=False)
    assert done.returncode == 0 and "held" in done.stdout.splitlines(), done.stdout[-4000:] + done.stderr[-4000:]
    calls = next(line for line in done.stdout.splitlines() if line.startswith("calls "))
    assert "200:" in calls and not calls.startswith("calls 0"), calls


# ---------------------------------------------------------------- changes without reset

def test_a_grant_acts_on_the_next_call_everywhere_and_ends_by_itself(proxy, crm, own_redis, user, auth):
    gates = [proxy(store=own_redis.url, quotas=quota(10), store_settings=KEEN, name=name) for name in ("one", "two")]
    one, two = gates
    assert statuses(one, auth, 5) == [200] * 5
    assert spend(two, auth) == 5
    assert one.call("GET", COUNT, auth).status == 429
    granted = time.monotonic()
    made = one.command_run("quota", "grant", user, "--rule", "daily", "--extra", "6", "--for", "5s", "--reason", "month-end", "-c", one.config_path)
    assert made.returncode == 0, made.stderr
    # The next call, on the proxy that was not asked, too.
    assert two.call("GET", COUNT, auth).status == 200
    assert one.call("GET", COUNT, auth).status == 200
    if time.monotonic() - granted < 4:
        assert {two.call("GET", COUNT, auth).status, one.call("GET", COUNT, auth).status} == {200}
    path = f"/api/v1/users/-/{user}/quotas/daily"
    eventually(lambda: json.loads(one.admin(path, with_token=True).body)["limit"] == 10, 15, "the grant is over")
    eventually(lambda: [gate.call("GET", COUNT, auth).status for gate in gates] == [429, 429], 15, "and the limit is what it was")
    assert 12 <= admitted(crm) <= 16


def test_a_limit_that_is_lowered_drains_and_takes_nothing_back(proxy, crm, own_redis, user, auth):
    gate = proxy(store=own_redis.url, quotas=quota(100), store_settings=KEEN)
    other = proxy(store=own_redis.url, quotas=quota(100), store_settings=KEEN, name="other")
    assert statuses(gate, auth, 20) == [200] * 20
    assert statuses(other, auth, 10) == [200] * 10
    eventually(lambda: gate.used(auth) == 30, 10, "settled")
    path = f"/api/v1/users/-/{user}/quotas/daily"
    assert gate.admin(path, method="PUT", with_token=True, body=b'{"limit": 20}').status == 200
    eventually(lambda: [each.call("GET", COUNT, auth).status for each in (gate, other)] == [429, 429], 10, "above the new limit nothing passes")
    assert statuses(gate, auth, 10) == [429] * 10 and statuses(other, auth, 10) == [429] * 10
    drained = admitted(crm)
    eventually(lambda: gate.used(auth) == drained, 10, "what was used stays used")
    assert gate.admin(path, method="PUT", with_token=True, body=json.dumps({"limit": drained + 5}).encode()).status == 200
    assert spend(gate, auth) == 5
    assert other.call("GET", COUNT, auth).status == 429
    assert admitted(crm) == drained + 5 <= 100


def test_a_reload_with_a_raised_limit_acts_at_once_and_keeps_every_count(proxy, crm, own_redis, auth):
    gate = proxy(store=own_redis.url, quotas=quota(10), store_settings=KEEN)
    assert spend(gate, auth) == 10
    gate.write_config(quotas=quota(25))
    assert gate.admin("/api/v1/config/reload", method="POST", with_token=True).status == 200
    assert gate.used(auth) == 10
    eventually(lambda: gate.call("GET", COUNT, auth).status == 200, 5, "the new limit is obeyed")
    assert spend(gate, auth) == 14
    assert gate.used(auth) == 25 == admitted(crm)
    gate.kill()
    gate.launch()
    gate.wait_ready()
    assert gate.call("GET", COUNT, auth).status == 429


def test_a_candidate_limit_reports_over_proxies_and_kills_and_refuses_nobody(proxy, crm, own_redis, auth):
    rules = quota(60) + [{"name": "next", "mode": "shadow", "limit": 8, "window": "24h", "per": ["user"], "on": "licensed"}]
    one = proxy(store=own_redis.url, quotas=rules, store_settings=KEEN, name="one")
    two = proxy(store=own_redis.url, quotas=rules, store_settings=KEEN, name="two")
    assert statuses(one, auth, 20) == [200] * 20
    eventually(lambda: one.metric("tollgate_shadow_violations_total", limit="next") == 12, 10, "twelve would have been refused")
    one.kill()
    one.launch()
    one.wait_ready()
    assert statuses(two, auth, 10) == [200] * 10
    eventually(lambda: two.metric("tollgate_shadow_violations_total", limit="next") == 10, 10, "the candidate is one for both")
    assert spend(one, auth) == 30  # the enforced limit is enforced
    assert admitted(crm) == 60


# ---------------------------------------------------------------- a store that stands still

def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def timed(gate, headers, count):
    took = []
    with gate.client() as client:
        for number in range(count):
            started = time.monotonic()
            assert client.request("GET", COUNT, headers[number % len(headers)]).status == 200
            took.append(time.monotonic() - started)
    return took


def test_calls_with_leases_do_not_feel_a_frozen_store(proxy, crm, own_redis, user):
    gate = proxy(store=own_redis.url, quotas=quota(100_000), store_settings={"lease_max": 5_000, "timeout": f"{200 * PATIENCE}ms"})
    headers = [bearer(f"{user}-{i}") for i in range(5)]
    timed(gate, headers, 2_000)  # leases grow with need
    before = timed(gate, headers, 600)
    own_redis.signal(signal.SIGSTOP)
    try:
        during = timed(gate, headers, 600)
        started = time.monotonic()
        refused = gate.call("GET", COUNT, bearer(user + "-new"))
        assert refused.status == 503 and time.monotonic() - started < 0.5 * PATIENCE
    finally:
        own_redis.signal(signal.SIGCONT)
    assert percentile(during, 0.99) < max(5 * percentile(before, 0.99), 0.020 * PATIENCE)
    assert percentile(during, 0.5) < max(3 * percentile(before, 0.5), 0.005 * PATIENCE)
    total = 3_200 // 5
    for each in headers:
        eventually(lambda: gate.used(each) == total, 10, "all is counted")
    assert admitted(crm) == 3_200
