"""The failure ladder: every way in which the store, the network to it, the proxy or its disk can fail, provoked with real
processes. What is checked each time: no call is admitted beyond the limit, no admitted call is forgotten or counted twice,
calls with leases are served without waiting, and everything settles once the fault is over."""
import shutil
import signal
import threading
import time

import pytest

from harness import PATIENCE, Redis, bearer, eventually, free_port
from relay import Relay
from requests_crm import CASES

COUNT = CASES + "/$count"
SHORT = {"session": "3s", "ping_interval": "1s", "flush_interval": "1s", "fence_wait": "2s"}
BOUND = {"timeout": f"{50 * PATIENCE}ms"}  # as configured when nothing is said: where the bound itself is tested


def quota(limit, window="24h", **more):
    return [{"name": "daily", "limit": limit, "window": window, "per": ["user"], "on": "licensed", **more}]


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), name="own-redis"))


@pytest.fixture
def relay(own_redis):
    made = Relay(own_redis.port).start()
    yield made
    made.stop()


def statuses(gate, headers, count):
    with gate.client() as client:
        return [client.request("GET", COUNT, headers).status for _ in range(count)]


def admitted(crm):
    return crm.counts()["operations"].get("GET Case", 0)


def spend(gate, headers, until=429, most=10_000):
    """Calls until `until` is answered; how many passed. Anything but 200 and until is an error."""
    passed = 0
    with gate.client() as client:
        for _ in range(most):
            status = client.request("GET", COUNT, headers).status
            if status == until:
                return passed
            assert status == 200, status
            passed += 1
    raise AssertionError(f"{most} calls passed")


# ---------------------------------------------------------------- the way to the store

def test_a_slow_store_never_delays_a_call_beyond_the_bound(proxy, crm, relay, user, auth):
    gate = proxy(store=relay.url, store_settings=BOUND)
    eventually(lambda: statuses(gate, bearer(user + "-early"), 1) == [200], 10, "the store has been heard within the bound")
    relay.delay = 0.3
    started = time.monotonic()
    reply = gate.call("GET", COUNT, auth)  # nothing is leased for this user yet
    assert reply.status == 503 and reply.json()["reason"] == "store_unavailable"
    assert time.monotonic() - started < 0.25 * PATIENCE
    # The tokens came late, but they came: nothing has to be asked any more.
    eventually(lambda: gate.call("GET", COUNT, auth).status == 200, 10, "the lease has arrived")
    started = time.monotonic()
    assert statuses(gate, auth, 20) == [200] * 20
    assert time.monotonic() - started < 0.3 * PATIENCE
    relay.heal()
    total = admitted(crm) - 1
    eventually(lambda: gate.used(auth) == total, 10, "what was admitted is what is counted")


@pytest.mark.parametrize("fault", ["stall", "halve", "cut"])
def test_leases_are_served_without_the_store_and_settle_when_it_is_back(proxy, crm, relay, user, auth, fault):
    gate = proxy(store=relay.url, quotas=quota(500), store_settings={**BOUND, "flush_interval": "1s"})
    assert statuses(gate, auth, 3) == [200] * 3
    getattr(relay, fault)()
    slowest = 0.0
    with gate.client() as client:
        for _ in range(20):
            started = time.monotonic()
            assert client.request("GET", COUNT, auth).status == 200
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < 0.1 * PATIENCE
    started = time.monotonic()
    refused = gate.call("GET", COUNT, bearer(user + "-new"))
    assert refused.status == 503 and refused.json()["reason"] == "store_unavailable"
    assert time.monotonic() - started < 0.25 * PATIENCE
    relay.heal()
    eventually(lambda: gate.call("GET", COUNT, bearer(user + "-new")).status == 200, 15, "new users are admitted again")
    eventually(lambda: gate.used(auth) == 23, 10, "all calls are counted, none twice")
    eventually(lambda: gate.used(bearer(user + "-new")) == 1, 10, "refused calls are not counted")
    assert spend(gate, auth) == 500 - 23


def test_without_the_store_for_longer_than_a_session_leases_end(proxy, crm, relay, auth):
    gate = proxy(store=relay.url, quotas=quota(500), store_settings=SHORT)
    assert statuses(gate, auth, 2) == [200] * 2
    relay.cut()
    assert statuses(gate, auth, 2) == [200] * 2
    eventually(lambda: gate.call("GET", COUNT, auth).status == 503, 8, "the session has lapsed")
    passed = admitted(crm)
    eventually(lambda: gate.metric("tollgate_lease_lapses_total") >= 1, 5, "the lapse is counted")
    relay.heal()
    eventually(lambda: gate.call("GET", COUNT, auth).status == 200, 15, "calls are admitted again")
    eventually(lambda: gate.used(auth) == passed + 1, 10, "nothing was forgotten in between")
    assert spend(gate, auth) == 500 - passed - 1


def test_connections_that_break_again_and_again_lose_and_double_nothing(proxy, crm, relay, user):
    gate = proxy(store=relay.url, quotas=quota(100_000), store_settings={"flush_interval": "1s"})
    users = [bearer(f"{user}-{i}") for i in range(5)]
    for headers in users:
        assert statuses(gate, headers, 1) == [200]
    stop = time.monotonic() + 4
    sent = {}

    def load(index):
        sent[index] = 0
        with gate.client() as client:
            while time.monotonic() < stop:
                sent[index] += client.request("GET", COUNT, users[index]).status == 200

    threads = [threading.Thread(target=load, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        relay.drop()
        time.sleep(0.07)
    for thread in threads:
        thread.join()
    assert sum(sent.values()) > 500
    for index, headers in enumerate(users):
        eventually(lambda: gate.used(headers) == sent[index] + 1, 15, f"user {index} is counted to the call")


# ---------------------------------------------------------------- a store that forgets

def agreed_again(gate):
    """What the store had forgotten is replayed, and the fence behind which new tokens waited is open."""
    figures = gate.metrics()
    return figures["tollgate_lease_replays_total"] > 0 and figures["tollgate_fence_wait_seconds"] == 0


def test_a_flushed_store_is_rebuilt_from_the_journal(proxy, own_redis, auth):
    gate = proxy(store=own_redis.url, quotas=quota(30), store_settings=SHORT)
    assert statuses(gate, auth, 12) == [200] * 12
    eventually(lambda: gate.used(auth) == 12, 10, "the calls are settled")
    assert own_redis.command_line("FLUSHALL") == "OK"
    eventually(lambda: agreed_again(gate), 20, "the store is rebuilt")
    assert gate.used(auth) == 12
    assert spend(gate, auth) == 18


def test_a_store_that_restarts_empty_admits_nothing_twice(proxy, crm, own_redis, auth):
    first = proxy(store=own_redis.url, quotas=quota(40), store_settings=SHORT, name="first")
    second = proxy(store=own_redis.url, quotas=quota(40), store_settings=SHORT, name="second")
    assert statuses(first, auth, 9) == [200] * 9
    assert statuses(second, auth, 8) == [200] * 8
    own_redis.kill()
    own_redis.start()
    eventually(lambda: first.metric("tollgate_store_up") == 1 and second.metric("tollgate_store_up") == 1, 20, "both are back")
    eventually(lambda: second.used(auth) == 17, 20, "both have replayed")
    passed = 17

    def exhausted():
        nonlocal passed
        refused = 0
        for gate in (first, second):
            status = gate.call("GET", COUNT, auth).status
            passed += status == 200
            refused += status == 429
        return refused == 2

    eventually(exhausted, 20, "the limit is reached")
    assert passed == 40 == admitted(crm)


def test_a_store_restarted_from_an_older_file_is_brought_up_to_date(proxy, start, tmp_path, crm, auth):
    redis = start(Redis(str(tmp_path), name="dumping", extra=["--dbfilename", "dump.rdb"]))
    gate = proxy(store=redis.url, quotas=quota(60), store_settings=SHORT)
    assert statuses(gate, auth, 10) == [200] * 10
    eventually(lambda: gate.used(auth) == 10, 10, "settled")
    assert redis.command_line("SAVE") == "OK"
    assert statuses(gate, auth, 15) == [200] * 15
    eventually(lambda: gate.used(auth) == 25, 10, "settled")
    redis.kill()
    redis.start()  # loads what was true ten calls ago
    eventually(lambda: gate.used(auth) == 25, 20, "the forgotten calls are replayed")
    eventually(lambda: agreed_again(gate), 20, "the fence is open")
    assert spend(gate, auth) == 35
    assert admitted(crm) == 60


def replicated(start, tmp_path, extra=()):
    """A primary, a relay for its replication, and a replica that is in step."""
    primary = start(Redis(str(tmp_path), name="primary", extra=["--repl-diskless-sync-delay", "0", *extra]))
    link = Relay(primary.port).start()
    replica = start(Redis(str(tmp_path), name="replica", extra=["--replicaof", "127.0.0.1", str(link.port), *extra]))
    eventually(lambda: "master_link_status:up" in replica.command_line("INFO", "replication"), 20, "the replica follows")
    return primary, link, replica


def test_a_failover_that_loses_acknowledged_writes_loses_no_call(proxy, start, tmp_path, crm, auth):
    primary, link, replica = replicated(start, tmp_path)
    way = Relay(primary.port).start()
    gate = proxy(store=way.url, quotas=quota(80), store_settings=SHORT)
    other = proxy(store=way.url, quotas=quota(80), store_settings=SHORT, name="other")
    assert statuses(gate, auth, 10) == [200] * 10
    eventually(lambda: gate.used(auth) == 10, 10, "settled")
    offset = lambda: [line.split(":")[1] for line in primary.command_line("INFO", "replication").splitlines()
                      if line.startswith("master_repl_offset")][0]
    eventually(lambda: f"slave_repl_offset:{offset()}" in replica.command_line("INFO", "replication"), 10, "in step")
    link.stall()  # from here on the replica hears nothing
    assert statuses(gate, auth, 20) == [200] * 20
    assert statuses(other, auth, 10) == [200] * 10
    eventually(lambda: gate.used(auth) == 40, 10, "acknowledged by the primary alone")
    primary.kill()
    assert replica.command_line("REPLICAOF", "NO", "ONE") == "OK"
    way.target = replica.port
    way.drop()
    eventually(lambda: gate.used(auth) == 40, 25, "the lost writes are there again")
    passed = 40

    def exhausted():
        nonlocal passed
        refused = 0
        for each in (gate, other):
            status = each.call("GET", COUNT, auth).status
            passed += status == 200
            refused += status == 429
        return refused == 2

    eventually(exhausted, 20, "the limit is reached")
    assert passed == 80 == admitted(crm)
    way.stop()
    link.stop()


def test_with_wait_no_grant_is_used_that_a_replica_has_not_confirmed(proxy, start, tmp_path, crm, user):
    primary, link, replica = replicated(start, tmp_path)
    gate = proxy(store=primary.url, quotas=quota(50), store_settings={**SHORT, "durability": "wait", "wait_timeout": "100ms"})
    old, new = bearer(user + "-old"), bearer(user + "-new")
    assert statuses(gate, old, 3) == [200] * 3
    link.stall()
    assert gate.call("GET", COUNT, new).status == 503
    assert statuses(gate, old, 2) == [200] * 2  # from the lease that was confirmed
    eventually(lambda: gate.metric("tollgate_store_wait_misses_total") >= 1, 10, "the miss is counted")
    link.heal()
    eventually(lambda: gate.call("GET", COUNT, new).status == 200, 20, "grants are confirmed again")
    eventually(lambda: gate.used(old) == 5 and gate.used(new) == 1, 10, "all is counted")
    link.stop()


def test_in_a_split_brain_the_cut_off_side_grants_nothing_with_wait(proxy, start, tmp_path, crm, auth):
    primary, link, replica = replicated(start, tmp_path)
    settings = {**SHORT, "durability": "wait", "wait_timeout": "100ms", "session": "60s"}
    majority_way = Relay(primary.port).start()
    minority = proxy(store=primary.url, quotas=quota(40), store_settings=settings, name="minority")
    majority = proxy(store=majority_way.url, quotas=quota(40), store_settings=settings, name="majority")
    assert statuses(minority, auth, 5) == [200] * 5
    assert statuses(majority, auth, 5) == [200] * 5
    eventually(lambda: majority.used(auth) == 10, 10, "settled")
    link.cut()
    assert replica.command_line("REPLICAOF", "NO", "ONE") == "OK"
    second = Redis(str(tmp_path), name="second-replica", extra=["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", str(replica.port)])
    start(second)
    majority_way.target = replica.port
    majority_way.drop()
    for _ in range(60):
        for gate in (minority, majority):
            assert gate.call("GET", COUNT, auth).status in (200, 429, 503)
    time.sleep(3)
    for _ in range(60):
        for gate in (minority, majority):
            assert gate.call("GET", COUNT, auth).status in (200, 429, 503)
    assert admitted(crm) <= 40
    majority_way.stop()
    link.stop()


def test_a_store_without_memory_grants_nothing_and_recovers(proxy, own_redis, user, auth):
    gate = proxy(store=own_redis.url, quotas=quota(200), store_settings={"flush_interval": "1s"})
    assert statuses(gate, auth, 2) == [200] * 2
    assert own_redis.command_line("CONFIG", "SET", "maxmemory", "1") == "OK"
    assert gate.call("GET", COUNT, bearer(user + "-new")).status == 503
    assert statuses(gate, auth, 5) == [200] * 5
    assert own_redis.command_line("CONFIG", "SET", "maxmemory", "0") == "OK"
    eventually(lambda: gate.call("GET", COUNT, bearer(user + "-new")).status == 200, 15, "grants are given again")
    eventually(lambda: gate.used(auth) == 7, 10, "all calls are counted")


# ---------------------------------------------------------------- a proxy that dies

def test_a_killed_proxy_forgets_nothing_and_strands_nothing(proxy, crm, own_redis, auth):
    gate = proxy(store=own_redis.url, quotas=quota(100))
    passed = 0
    for _ in range(5):
        assert statuses(gate, auth, 7) == [200] * 7
        passed += 7
        gate.kill()
        gate.launch()
        gate.wait_ready()
    eventually(lambda: gate.used(auth) == passed, 10, "every call is counted once")
    assert spend(gate, auth) == 100 - passed  # and no token went missing
    assert admitted(crm) == 100


def test_a_proxy_that_dies_while_the_store_is_away_settles_later(proxy, crm, relay, auth):
    gate = proxy(store=relay.url, quotas=quota(100))
    assert statuses(gate, auth, 2) == [200] * 2
    relay.cut()
    assert statuses(gate, auth, 5) == [200] * 5
    gate.kill()
    gate.launch()
    relay.heal()
    gate.wait_ready()
    eventually(lambda: gate.used(auth) == 7, 15, "the five calls are found in the journal's cells")
    assert spend(gate, auth) == 93


def test_a_journal_lost_with_its_disk_never_admits_too_much(proxy, crm, own_redis, auth):
    gate = proxy(store=own_redis.url, quotas=quota(100))
    assert statuses(gate, auth, 10) == [200] * 10
    gate.kill()
    shutil.rmtree(f"{gate.folder}/journal")
    gate.launch()
    gate.wait_ready()
    spend(gate, auth)
    # What the lost proxy had leased stays charged: some calls too few, never one too many.
    assert admitted(crm) <= 100


def test_a_second_proxy_uses_what_the_first_holds(proxy, crm, own_redis, auth):
    first = proxy(store=own_redis.url, quotas=quota(20), name="first")
    second = proxy(store=own_redis.url, quotas=quota(20), name="second")
    assert statuses(first, auth, 1) == [200]
    assert spend(second, auth) == 19  # the last ones are recalled from the first
    assert first.call("GET", COUNT, auth).status == 429
    assert admitted(crm) == 20


def test_a_clean_stop_hands_everything_back(proxy, crm, own_redis, auth):
    first = proxy(store=own_redis.url, quotas=quota(20), name="first")
    assert statuses(first, auth, 3) == [200] * 3
    assert first.stop() == 0
    shutil.rmtree(f"{first.folder}/journal")
    second = proxy(store=own_redis.url, quotas=quota(20), name="second")
    assert spend(second, auth) == 17


def test_two_proxies_cannot_share_a_journal(proxy, tmp_path, own_redis, crm):
    from harness import Proxy
    first = proxy(store=own_redis.url, name="first")
    second = Proxy(str(tmp_path), crm.url, own_redis.url, "intruder", {"journal": {"directory": f"{first.folder}/journal"}})
    second.write_config()
    second.launch()
    assert second.child.wait(20) != 0
    assert str(first.pid) in second.log() and "journal" in second.log()


def test_an_over_quota_storm_costs_no_round_trips(proxy, own_redis, auth):
    gate = proxy(store=own_redis.url, quotas=quota(5))
    assert spend(gate, auth) == 5
    time.sleep(1.2)  # the figures are told once a second
    before = gate.metric("tollgate_store_commands_total")
    assert statuses(gate, auth, 300) == [429] * 300
    time.sleep(1.2)  # the figures are told once a second
    assert gate.metric("tollgate_store_commands_total") - before <= 10
