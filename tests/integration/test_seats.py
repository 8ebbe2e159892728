"""Seats: named ones counted exactly, concurrent ones never more than there are, whatever is killed; looking and releasing."""
import asyncio
import json
import random
import signal
import subprocess
import threading
import time

import pytest

from harness import CUSTOMER, PATIENCE, SELF_SERVICE, TOLLGATE, Proxy, Redis, bearer, eventually, token
from http1 import Closed
from requests_crm import CASES

LEASE = 2  # seconds; every sixth of it holders are renewed
NO_LIMIT = [{"name": "daily", "limit": 1000000, "window": "24h", "per": ["user"], "on": "licensed"}]


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), "own-redis"))


@pytest.fixture
def portal(proxy, own_redis):
    """portal(name, users=..., capacity=..., idle=...): a proxy on a Redis of this test's own."""

    def make(name="one", users=1, capacity=0, idle=4, **changes):
        return proxy(name=name, store=own_redis.url, quotas=NO_LIMIT, **{
            "licensing": {"system": "bpmonline", "main_products": ["service_enterprise"], "main_product_users": users,
                          "seat_lease": f"{LEASE}s", "concurrent_seats": {"capacity": capacity, "idle": f"{idle}s"}}, **changes})

    return make


def call(gate, user, license_name=CUSTOMER):
    return gate.call("GET", CASES, bearer(user, licenses=(license_name,)))


def first_seat(gate, user="first"):
    """Until a pool has been seen for one lease nobody gets a concurrent seat."""
    reply = call(gate, user)
    if reply.status != 200:
        assert reply.status == 503 and reply.json()["reason"] == "store_unavailable", reply
        assert 1 <= int(reply.get("Retry-After")) <= LEASE
    eventually(lambda: call(gate, user).status == 200, LEASE + 5, "the first concurrent seat")


def pools(gate):
    reply = gate.admin("/api/v1/licenses", with_token=True)
    assert reply.status == 200, reply
    return {product["id"]: product for product in reply.json()}


def holders(gate, pool):
    reply = gate.admin(f"/api/v1/licenses/{pool}/seats", with_token=True)
    assert reply.status == 200, reply
    return {seat["user"] for seat in reply.json()["seats"]}


def command(gate, *words):
    return gate.command_run("license", *words, "-c", gate.config_path)


# ---------------------------------------------------------------- named

async def everybody(ports, tokens, lanes):
    """Status of one call of each token, over so many connections to the ports in turn."""
    statuses, queue = {}, list(enumerate(tokens))

    async def lane(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            number, own = queue.pop()
            writer.write(f"GET {CASES} HTTP/1.1\r\nHost: crm\r\nAuthorization: Bearer {own}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
            await reader.readexactly(length)
            statuses[number] = (int(head.split(" ")[1]), "license-seat: self_service;taken" in head.lower())
        writer.close()

    await asyncio.gather(*(lane(ports[i % len(ports)]) for i in range(lanes)))
    return statuses


def fill(gates, users, capacity, lanes=48):
    tokens = [token(f"user{number}", licenses=(SELF_SERVICE,)) for number in range(users)]
    first = asyncio.run(everybody([gate.port for gate in gates], tokens, lanes))
    assert sum(status == 200 for status, _ in first.values()) == capacity
    assert sum(taken for _, taken in first.values()) == capacity, "each seat is told once"
    assert {status for status, _ in first.values()} == {200, 403}
    return tokens, {number for number, (status, _) in first.items() if status == 200}


def test_a_hundred_named_seats_are_a_hundred_users_over_three_proxies(portal, crm):
    gates = [portal(name) for name in ("one", "two", "three")]
    tokens, inside = fill(gates, 140, 100)
    again = asyncio.run(everybody([gate.port for gate in reversed(gates)], tokens, 30))
    assert {number for number, (status, _) in again.items() if status == 200} == inside, "who is in stays in, on every proxy"
    assert not any(taken for _, taken in again.values())
    assert pools(gates[0])["self_service"]["used"] == 100
    eventually(lambda: gates[1].metric("tollgate_seats_used", product="self_service") == 100, 10, "the metric")
    assert gates[1].metric("tollgate_seats_cap", product="self_service") == 100


@pytest.mark.slow
def test_ten_thousand_and_one_users_and_ten_thousand_seats(portal, crm):
    gates = [portal(name, users=100) for name in ("one", "two", "three")]
    fill(gates, 10_001, 10_000)
    listed = command(gates[2], "seats", "--pool", "self_service", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert len({seat["user"] for seat in json.loads(listed.stdout)[0]["seats"]}) == 10_000


def test_a_refused_user_is_told_why_and_pays_nothing(portal, crm):
    gate = portal()
    fill([gate], 101, 100)
    refused = call(gate, "late", SELF_SERVICE)
    assert refused.status == 403 and refused.json()["reason"] == "seat_cap_reached", refused
    assert refused.json()["pool"] == "self_service" and refused.json()["capacity"] == 100
    assert gate.used(bearer("late", licenses=(SELF_SERVICE,))) == 0
    assert call(gate, "late", CUSTOMER).status == 200, "the customer portal has no cap"
    assert gate.call("GET", CASES, bearer("late", licenses=(SELF_SERVICE, CUSTOMER))).status == 200


def test_usage_and_header_tell_the_caller_of_the_seat(portal, crm):
    gate = portal()
    headers = bearer("ann", licenses=(SELF_SERVICE,))
    named = lambda: next(seat for seat in gate.usage(headers)["seats"] if seat["pool"] == "self_service")  # noqa: E731
    assert named()["held"] is False, "looking takes nothing"
    assert call(gate, "ann", SELF_SERVICE).get("License-Seat") == "self_service;taken"
    assert call(gate, "ann", SELF_SERVICE).get("License-Seat") is None
    assert named() == {"pool": "self_service", "kind": "named", "held": True}


def test_named_seats_survive_proxies_and_a_flushed_redis(portal, crm, own_redis):
    one, two = portal("one"), portal("two")
    for number in range(40):
        assert call(one, f"user{number}", SELF_SERVICE).status == 200
    assert one.stop() == 0
    one.launch()
    one.wait_ready()
    assert pools(one)["self_service"]["used"] == 40
    for number in range(40):
        assert call(two, f"user{number}", SELF_SERVICE).get("License-Seat") is None
    own_redis.command_line("FLUSHALL")
    eventually(lambda: pools(one)["self_service"]["used"] == 40, LEASE, "what a proxy remembers is given back")


def test_commands_list_release_and_assign_with_an_audit(portal, crm):
    gate = portal()
    fill([gate], 101, 100)
    shown = command(gate, "list")
    assert shown.returncode == 0 and "self_service  Self-service Portal  yes" in shown.stdout, shown
    inside = sorted(holders(gate, "self_service"))
    assert len(inside) == 100
    refused = command(gate, "assign", "boss")
    assert refused.returncode == 1 and "100 seats" in refused.stderr, refused
    released = command(gate, "release", inside[0], "--reason", "left the company")
    assert released.returncode == 0 and "self_service" in released.stderr, released
    assert command(gate, "release", inside[0]).returncode == 1
    assigned = command(gate, "assign", "boss", "--reason", "new")
    assert assigned.returncode == 0, assigned
    assert call(gate, inside[0], SELF_SERVICE).status == 403
    boss = call(gate, "boss", SELF_SERVICE)
    assert boss.status == 200 and boss.get("License-Seat") is None
    assert "boss" in command(gate, "seats", "--pool", "self_service").stdout
    audit = gate.admin("/api/v1/audit", with_token=True).json()
    assert [(entry["action"], entry["subject"], entry["reason"]) for entry in audit if entry["action"].startswith("seat.")] == [
        ("seat.assign", "-/boss self_service", "new"),
        ("seat.release.failed", f"-/{inside[0]} self_service", ""), ("seat.release", f"-/{inside[0]} self_service", ""),
        ("seat.release", f"-/{inside[0]} self_service", "left the company"),
        ("seat.assign.failed", "-/boss self_service", ""), ("seat.assign", "-/boss self_service", "")]
    assert gate.admin("/api/v1/licenses/nothing/seats", with_token=True).status == 404


# ---------------------------------------------------------------- concurrent

def test_one_user_holds_one_seat_whatever_the_number_of_clients_and_it_is_free_after_the_idle_time(portal, crm):
    one, two = portal("one", capacity=1), portal("two", capacity=1)
    first_seat(one, "ann")
    assert call(two, "ann").status == 200
    last = time.monotonic()
    refused = call(one, "bob")
    assert refused.status == 429 and refused.json()["reason"] == "concurrent_licenses_exhausted", refused
    assert 1 <= int(refused.get("Retry-After")) <= 4
    assert holders(two, "concurrent") == {"ann"}
    taken = eventually(lambda: (reply := call(two, "bob")).status == 200 and reply, 6, "bob gets in")
    assert taken.get("License-Seat") == "concurrent;taken"
    assert 4 - 0.5 < time.monotonic() - last < 4 + 2 * PATIENCE
    seat = next(seat for seat in two.usage(bearer("bob"))["seats"] if seat["pool"] == "concurrent")
    assert seat["held"] and 1 <= seat["seconds_left"] <= 4


def test_seats_at_once_bind_portal_users_with_system_none_and_staff_needs_none(portal, crm):
    gate = portal(licensing={"system": "none", "main_products": None, "seat_lease": f"{LEASE}s",
                             "concurrent_seats": {"capacity": 1, "idle": "4s"}})
    first_seat(gate, "ann")
    assert call(gate, "bob").status == 429
    assert gate.call("GET", CASES, bearer("boss", user_type="staff")).status == 200
    assert holders(gate, "concurrent") == {"ann"}


def test_a_released_seat_is_another_users_at_once_and_the_old_holder_is_out_within_a_lease_everywhere(portal, crm):
    one, two = portal("one", capacity=1, idle=60), portal("two", capacity=1, idle=60)
    first_seat(two, "ann")
    released = command(one, "release", "ann")
    assert released.returncode == 0, released
    at = time.monotonic()
    assert call(one, "bob").status == 200, "the seat is free at once"
    out = eventually(lambda: call(two, "ann").status == 429 and time.monotonic(), LEASE + 2, "the other proxy notices")
    assert out - at < (LEASE + LEASE / 6 + 0.5) * PATIENCE
    assert call(two, "bob").status == 200


class Session(threading.Thread):
    """A user who works for a while, goes away for longer than the idle time, and comes back; through any proxy."""

    def __init__(self, name, gates, until, seed):
        super().__init__()
        self.user, self.gates, self.until, self.random = name, gates, until, random.Random(seed)
        self.served, self.statuses = [], {}

    def run(self):
        headers = bearer(self.user)
        time.sleep(self.random.uniform(0, 2))
        while time.monotonic() < self.until:
            for _ in range(self.random.randint(1, 10)):
                sent = time.monotonic()
                gate = self.random.choice(self.gates)
                try:
                    reply = gate.call("GET", CASES, headers)
                    self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
                    if reply.status == 200:
                        self.served.append((sent, time.monotonic(), gate))
                    elif reply.status == 429:
                        assert int(reply.get("Retry-After")) >= 1
                        break
                except (OSError, Closed):
                    pass  # killed
                time.sleep(self.random.uniform(0.1, 0.6))
            time.sleep(self.random.uniform(0.2, 6))


def most_at_once(sessions, held_for, kills):
    """Who was served between `sent` and `received` surely held a seat from then on to `sent` + idle, unless the proxy was killed
    before it had surely told the store of that call: a lease later it takes nobody for a holder that it has not renewed."""
    edges = []
    for session in sessions:
        joined = []
        for sent, received, gate in session.served:
            start, end = received, sent + held_for
            if any(victim is gate and sent <= when <= received + LEASE for victim, when in kills):
                continue
            if start >= end:
                continue
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        for start, end in joined:
            edges += [(start, 1), (end, -1)]
    now = most = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


def test_a_hundred_sessions_contend_for_forty_seats_while_proxies_are_killed(portal, crm):
    idle = 4
    gates = [portal(name, capacity=40, idle=idle) for name in ("one", "two", "three")]
    first_seat(gates[0])
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice, until = random.Random(seed), time.monotonic() + 20
    sessions = [Session(f"user{number}", gates, until, seed + number) for number in range(100)]
    for session in sessions:
        session.start()
    kills = []
    while time.monotonic() < until - 4:
        time.sleep(dice.uniform(0.5, 2))
        victim = dice.choice(gates)
        kills.append((victim, time.monotonic()))
        victim.signal(signal.SIGKILL)
        victim.child.wait(10)
        time.sleep(dice.uniform(0, 1))
        victim.launch()
        victim.wait_ready()
    for session in sessions:
        session.join()
    over = time.monotonic()
    statuses = {}
    for session in sessions:
        for status, count in session.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    most = most_at_once(sessions, idle - 0.05, kills)  # Redis counts in milliseconds of its own
    print("statuses", statuses, "kills", len(kills), "most", most)
    assert most <= 40
    assert most >= 35, "the pool was really full"
    assert len(kills) >= 3 and statuses[429] > 50 and statuses[200] > 300, (kills, statuses)
    eventually(lambda: pools(gates[0])["concurrent"]["used"] == 0, idle + 2, "all seats are free")
    assert time.monotonic() - over < idle + LEASE / 6 + 1 * PATIENCE


@pytest.mark.parametrize("loss", ["flushed", "restarted empty"])
def test_a_redis_that_forgets_gives_no_seat_away_that_is_in_use(portal, crm, own_redis, loss):
    gate, other = portal("one", capacity=2, idle=10, workers=1), portal("two", capacity=2, idle=10)
    first_seat(gate, "ann")
    assert call(gate, "bob").status == 200
    if loss == "flushed":
        own_redis.command_line("FLUSHALL")
    else:
        own_redis.kill()
        own_redis.start()
    end = time.monotonic() + 3 * LEASE
    statuses = set()
    while time.monotonic() < end:
        assert call(gate, "ann").status == call(gate, "bob").status == 200, "holders go on"
        late = call(other, "cid")
        statuses.add(late.status)
        assert late.status != 200, "while both seats are in use"
        time.sleep(0.05)
    assert 429 in statuses, "the fence is over"
    assert holders(other, "concurrent") == {"ann", "bob"}


def test_while_redis_is_away_holders_are_served_for_a_lease_and_nobody_new(portal, crm, own_redis):
    gate = portal(capacity=5, idle=60, workers=1)
    first_seat(gate, "ann")
    own_redis.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert call(gate, "ann").status == 200
    assert call(gate, "new").status == 503
    eventually(lambda: call(gate, "ann").status == 503, LEASE + 3, "the lease ends")
    assert time.monotonic() - stopped > LEASE / 2, "it began with the last renewal"
    own_redis.signal(signal.SIGCONT)
    eventually(lambda: call(gate, "ann").status == 200, 10, "the store is back")


def test_a_file_of_users_is_assigned_row_by_row_under_the_exact_cap_and_may_be_given_again(portal, crm, tmp_path):
    gate = portal(users=1)  # 100 seats
    listed = tmp_path / "users.csv"
    rows = ["user,tenant,pool"] + [f"user{number},," for number in range(60)]
    rows[10] = ",,"                      # line 11: no user
    rows[20] = "user19,,no_such_pool"    # line 21
    rows[30] = "user29"                  # line 31: cells are missing
    rows[40] = 'us"er39,,'               # line 41: a stray quote
    rows.append("user0,,")               # once more
    rows.append("ann,acme,self_service")
    listed.write_text("\n".join(rows) + "\n")

    def assign(*more, text=None):
        return subprocess.run([TOLLGATE, "license", "assign", "--file", *more, "-c", gate.config_path], input=text, capture_output=True,
                              text=True, timeout=60, check=False)

    first = assign(str(listed), "--reason", "here before")
    assert first.returncode == 1, first
    bad = [line for line in first.stderr.splitlines() if "users.csv: line" in line]
    assert [line.split("users.csv: ")[1].split(":")[0] for line in bad] == ["line 11", "line 21", "line 31", "line 41"], bad
    assert "no_such_pool" in bad[1] and "no user" in bad[0]
    assert first.stderr.splitlines()[-1] == "57 assigned, 1 held already, 4 failed"
    assert len(holders(gate, "self_service")) == 57
    again = assign(str(listed))
    assert again.returncode == 1 and again.stderr.splitlines()[-1] == "0 assigned, 58 held already, 4 failed"
    more = assign("-", text="user\n" + "".join(f"more{number}\n" for number in range(50)))
    assert more.returncode == 1
    assert more.stderr.splitlines()[-1] == "43 assigned, 0 held already, 7 failed"
    assert "standard input: line 45: more43: All 100 seats of 'self_service' are taken." in more.stderr
    assert len(holders(gate, "self_service")) == 100
    assert call(gate, "more1", SELF_SERVICE).status == 200 and call(gate, "more49", SELF_SERVICE).status == 403
    audit = gate.admin("/api/v1/audit?limit=1000", with_token=True).json()
    assert any(entry["action"] == "seat.assign" and entry["reason"] == "here before" and entry["subject"] == "acme/ann self_service"
               for entry in audit)
    good = assign("-", "--tenant", "acme", text="\ufeffUser\r\nann\r\n")
    assert good.returncode == 0 and good.stderr == "0 assigned, 1 held already, 0 failed\n", good
    for wrong in (["--file", str(tmp_path / "none.csv")], ["--file", str(listed), "bob"], []):
        assert gate.command_run("license", "assign", *wrong, "-c", gate.config_path).returncode in (1, 2)
    assert "unknown column" in assign("-", text="name\nann\n").stderr


def test_a_file_is_given_up_where_the_store_is_away_and_goes_on_when_given_again(portal, crm, own_redis):
    gate = portal(users=1)
    text = "user\n" + "".join(f"user{number}\n" for number in range(20))

    def assign():
        return subprocess.run([TOLLGATE, "license", "assign", "--file", "-", "--pool", "self_service", "-c", gate.config_path], input=text, capture_output=True,
                              text=True, timeout=60, check=False)

    own_redis.stop()
    eventually(lambda: gate.metric("tollgate_store_up") == 0, 10, "the store is away")
    refused = assign()
    assert refused.returncode == 69, refused
    assert "line 2: user0: given up here" in refused.stderr and refused.stderr.endswith("0 assigned, 0 held already, 1 failed\n")
    own_redis.start()
    eventually(lambda: gate.metric("tollgate_store_up") == 1, 20, "the store is back")
    eventually(lambda: assign().returncode == 0, 20, "all of them")
    assert len(holders(gate, "self_service")) == 20
