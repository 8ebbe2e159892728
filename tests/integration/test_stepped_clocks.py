"""Clocks that jump: the store's, and the proxy's own. No call more than the limit, no count forgotten, leases serve, the
disagreement is told, and all is well once the clock is right again."""
import os
import struct
import time

import pytest

from harness import Redis, bearer, eventually, preloadable
from test_failure_ladder import COUNT, admitted, quota, spend, statuses

HOUR = 3600
KEEN = {"ping_interval": "1s", "flush_interval": "1s", "lease_max": 20}


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    return preloadable("stepped_clock.c", tmp_path_factory.mktemp("clock"))


class Clock:
    """The wall clock of the programs that are started with `env`."""

    def __init__(self, shim, folder):
        self.path = os.path.join(folder, "clock-offset")
        self.step(0)
        self.env = {"LD_PRELOAD": shim, "STEPPED_CLOCK": self.path}

    def step(self, seconds):
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT), "wb") as file:
            file.write(struct.pack("<q", seconds * 1000))


@pytest.fixture
def clock(shim, tmp_path):
    return Clock(shim, str(tmp_path))


@pytest.fixture
def redis_with_clock(start, tmp_path, clock):
    redis = Redis(str(tmp_path), name="clock-redis")
    redis.env = clock.env
    return start(redis)


def seconds_ahead(redis):
    return int(redis.command_line("TIME").split()[0]) - time.time()


@pytest.mark.parametrize("step", [HOUR, 25 * HOUR, -HOUR])
def test_a_store_whose_clock_is_stepped_serves_leases_grants_nothing_and_forgets_nothing(proxy, crm, redis_with_clock, clock, user, auth, step):
    gate = proxy(store=redis_with_clock.url, quotas=quota(60), store_settings=KEEN)
    spent, fresh = bearer(user + "-spent"), bearer(user + "-fresh")
    assert spend(gate, spent) == 60
    assert statuses(gate, auth, 5) == [200] * 5
    eventually(lambda: gate.used(auth) == 5, 10, "settled")
    clock.step(step)
    assert abs(seconds_ahead(redis_with_clock) - step) < 5
    assert statuses(gate, auth, 1) == [200]  # from the lease
    # Ahead: at once, by the whole step. Behind: the store's books stand still, one second a second.
    told = lambda: gate.metric("tollgate_clock_disagreement_seconds")
    eventually(lambda: abs(told()) > (step - 60 if step > 0 else 2), 15, "the disagreement is told")
    refused = gate.call("GET", COUNT, fresh)
    assert refused.status == 503 and refused.json()["reason"] == "store_unavailable"
    eventually(lambda: gate.metric("tollgate_lease_clock_off_total") >= 1, 10, "an op without a grant is counted")
    # Whoever had reached the limit has not been forgotten.
    assert gate.call("GET", COUNT, spent).status in (429, 503)
    # What is lent goes on being served; then nothing more comes.
    passed = 6
    with gate.client() as client:
        while (status := client.request("GET", COUNT, auth).status) == 200:
            passed += 1
            assert passed <= 60
        assert status == 503
    assert passed > 6
    clock.step(0)
    for who in (fresh, auth):  # each partition asks again a second after it last heard of the disagreement
        eventually(lambda: gate.call("GET", COUNT, who).status == 200, 20, "grants are given again")
    passed += 1
    eventually(lambda: told() == 0, 15, "the clocks agree")
    eventually(lambda: gate.used(auth) == passed, 10, "what was served meanwhile is counted")
    assert spend(gate, auth) == 60 - passed
    assert gate.call("GET", COUNT, spent).status == 429
    assert gate.used(spent) == 60
    assert admitted(crm) == 121


def test_a_second_proxy_that_never_saw_the_right_time_gets_nothing_beyond_the_limit(proxy, crm, redis_with_clock, clock, auth):
    """The step comes while both know better; what one has used the other does not get again."""
    first = proxy(store=redis_with_clock.url, quotas=quota(40), store_settings=KEEN, name="first")
    second = proxy(store=redis_with_clock.url, quotas=quota(40), store_settings=KEEN, name="second")
    assert spend(first, auth) == 40
    clock.step(25 * HOUR)
    assert second.call("GET", COUNT, auth).status in (429, 503)
    clock.step(0)
    eventually(lambda: second.call("GET", COUNT, auth).status == 429, 20, "the limit is known again")
    assert admitted(crm) == 40


def test_a_proxy_whose_own_wall_clock_jumps_counts_as_before(proxy, crm, start, tmp_path, clock, redis, user):
    from harness import Proxy
    gate = Proxy(str(tmp_path), crm.url, redis.url, changes={"quotas": quota(40), "store": KEEN})
    gate.env = clock.env
    start(gate)
    auth = bearer(user, lifetime=10 * 24 * HOUR, iat=None)  # a token knows the wall clock only; it shall outlive the test
    passed = 0
    for step in (0, HOUR, 0, 25 * HOUR, -HOUR, 0):
        clock.step(step)
        assert statuses(gate, auth, 5) == [200] * 5, step
        passed += 5
        assert gate.metric("tollgate_clock_disagreement_seconds") == 0
    eventually(lambda: gate.used(auth) == passed, 10, "all are counted")
    clock.step(25 * HOUR)
    assert spend(gate, auth) == 40 - passed
    reply = gate.call("GET", COUNT, auth)
    assert reply.status == 429 and 23 * HOUR < int(reply.get("Retry-After")) <= 24 * HOUR + 125
    clock.step(0)
    assert gate.call("GET", COUNT, auth).status == 429
    assert gate.metric("tollgate_lease_lapses_total") == 0
    assert admitted(crm) == 40
