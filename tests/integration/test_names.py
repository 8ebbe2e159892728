"""Host names of the CRM: several addresses of which some are silent, and look-ups that take long."""
import collections
import contextlib
import os
import socket
import time

import pytest

from harness import Proxy, eventually, preloadable
from origin import Origin


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    return preloadable("names.c", tmp_path_factory.mktemp("names"))


class Names:
    """What the names of the programs that are started with `env` stand for."""

    def __init__(self, shim, folder):
        self.path = os.path.join(folder, "names")
        self.set()
        self.env = {"LD_PRELOAD": shim, "NAMES": self.path}

    def set(self, **addresses):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            for name, of_name in addresses.items():
                print(f"{name}.test", *of_name, file=file)
        os.rename(self.path + ".new", self.path)


@pytest.fixture
def names(shim, tmp_path):
    return Names(shim, str(tmp_path))


@pytest.fixture
def named_proxy(start, tmp_path, redis, names):
    """named_proxy(upstream, key=value, ...): a proxy that knows the names, and has one worker."""

    def make(upstream, **changes):
        gate = Proxy(str(tmp_path), upstream, redis.url, changes={"workers": 1, **changes})
        gate.env = names.env
        return start(gate)

    return make


@contextlib.contextmanager
def silent(address, port):
    """Nobody answers there: the queue of connections is full."""
    with contextlib.ExitStack() as sockets:
        deaf = sockets.enter_context(socket.create_server((address, port), backlog=0))
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))

        def full():
            with socket.socket() as probe:
                probe.settimeout(0.2)
                try:
                    probe.connect((address, port))
                except TimeoutError:
                    return True
            return False

        eventually(full, 5, "nobody answers")
        yield deaf


@pytest.fixture
def origin():
    origin = Origin()
    yield origin
    origin.close()


def timed_calls(gate, count):
    """The statuses, and how many calls took a second or more."""
    statuses, slow = collections.Counter(), 0
    for _ in range(count):
        started = time.monotonic()
        statuses[gate.call("GET", "/open/x").status] += 1
        slow += time.monotonic() - started >= 1
    return statuses, slow


FRESH = {"connect_timeout": "2s", "max_idle_connections": 0}  # every call connects


def test_a_silent_address_costs_one_call_its_share_of_the_time_and_fails_none(named_proxy, names, origin):
    names.set(crm=["127.0.0.2", "127.0.0.1"])
    with silent("127.0.0.2", origin.port):
        gate = named_proxy(f"http://crm.test:{origin.port}", upstreams={"crm": FRESH})
        statuses, slow = timed_calls(gate, 8)
        assert statuses == {200: 8} and slow == 1
        assert gate.metric("tollgate_upstream_healthy", server=f"http://crm.test:{origin.port}") == 1
        assert gate.metric("tollgate_upstream_connect_failures_total") == 0
        assert gate.log().count("address 127.0.0.2 cannot be reached") == 1
        assert "address 127.0.0.1" not in gate.log()


def test_calls_are_spread_evenly_over_all_addresses_that_answer(named_proxy, names, origin):
    names.set(crm=["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    with silent("127.0.0.2", origin.port), contextlib.closing(Origin("127.0.0.3", origin.port)) as other:
        gate = named_proxy(f"http://crm.test:{origin.port}", upstreams={"crm": FRESH})
        eventually(lambda: gate.call("GET", "/open/x").status == 200 and "address 127.0.0.2" in gate.log(), 10, "its silence is known")
        origin.reset()
        other.reset()
        assert timed_calls(gate, 8)[0] == {200: 8}
        assert (len(origin.requests()), len(other.requests())) == (4, 4)


def test_a_server_cannot_be_reached_when_none_of_its_addresses_can(named_proxy, names, origin):
    names.set(crm=["127.0.0.2", "127.0.0.3"])
    with silent("127.0.0.2", origin.port), silent("127.0.0.3", origin.port):
        gate = named_proxy(f"http://crm.test:{origin.port}", upstreams={"crm": {"connect_timeout": "300ms"}})
        reply = gate.call("GET", "/open/x")
        assert reply.status == 504 and reply.json()["reason"] == "upstream_connect_timeout"
        assert gate.metric("tollgate_upstream_healthy", server=f"http://crm.test:{origin.port}") == 0
    assert gate.log().count("cannot be reached") == 3  # each address, and the server


def test_a_health_check_gets_past_a_silent_address(named_proxy, names, origin):
    names.set(crm=["127.0.0.2", "127.0.0.1"])
    check = {"path": "/health", "interval": "1s", "timeout": "1s"}
    with silent("127.0.0.2", origin.port):
        gate = named_proxy(f"http://crm.test:{origin.port}", upstreams={"crm": {"connect_timeout": "10s", "health_check": check}})
        eventually(lambda: gate.metric("tollgate_upstream_health_checks_total", result="passed") >= 3, 15, "checks pass")
        assert gate.metric("tollgate_upstream_health_checks_total", result="failed") == 0


OPEN = {"path_prefix": "/open", "upstream": "quick", "metered": False}
SLOW = {"path_prefix": "/slow", "upstream": "crm", "metered": False}


def two_names(origin):
    return {"upstream": f"http://crm.test:{origin.port}", "routes": [SLOW, OPEN],
            "upstreams": {"crm": {"connect_timeout": "20s"},
                          "quick": {"servers": [f"http://quick.test:{origin.port}"], "connect_timeout": "1s"}}}


def test_a_look_up_that_takes_long_delays_no_other_upstream(named_proxy, names, origin):
    names.set(crm=["silent"], quick=["127.0.0.1"])
    gate = named_proxy(**two_names(origin))
    try:
        with gate.client() as waiting:
            waiting.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            assert timed_calls(gate, 4)[0] == {200: 4}
            names.set(crm=["127.0.0.1"], quick=["127.0.0.1"])
            assert waiting.read().status == 200
    finally:
        names.set()


def test_a_reload_keeps_what_is_known_about_a_name(named_proxy, names, origin):
    names.set(crm=["127.0.0.1"], quick=["127.0.0.1"])
    gate = named_proxy(**two_names(origin))
    try:
        assert gate.call("GET", "/open/x").status == 200
        names.set(crm=["silent"], quick=["silent"])
        gate.write_config(upstreams={"quick": {"response_timeout": "50s"}}, routes=[SLOW, OPEN, {**OPEN, "path_prefix": "/new"}])
        gate.reload()
        seen = set()

        def reloaded():
            seen.add(gate.call("GET", "/new").status)
            return seen - {404}

        eventually(reloaded, 10, "the new route is there")
        assert seen <= {404, 200}
    finally:
        names.set()
