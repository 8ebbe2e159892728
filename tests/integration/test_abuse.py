"""Clients that mean no good: slow ones, many of them from one address, floods; and a proxy short of descriptors or time."""
import contextlib
import os
import re
import resource
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import FLAVOUR, SANITIZED, Client, eventually
from http1 import Closed, render
from requests_crm import CASES

QUICK = {"limits": {"rate_window": "2s"}, "timeouts": {"request_head": "2s", "request_body": "30s", "client_write": "30s"}}


def seconds_until_end(sock, drip=b"", every=0.2, limit=15):
    """How long the other side keeps a connection on which `drip` is sent again and again; and what it said."""
    began, said = time.monotonic(), b""
    while time.monotonic() - began < limit:
        ready, _, _ = select.select([sock], [], [], every)
        try:
            if ready:
                data = sock.recv(65536)
                if not data:
                    return time.monotonic() - began, said
                said += data
            elif drip:
                sock.send(drip)
        except OSError:
            return time.monotonic() - began, said
    pytest.fail(f"the connection was still open after {limit} s; it said {said[:200]!r}")


# ---------------------------------------------------------------- slow clients

def test_a_slow_head_is_cut_however_steadily_it_drips(proxy, crm):
    gate = proxy(**QUICK)
    with gate.client() as client:
        client.send(b"GET /echo HTTP/1.1\r\nHost: crm.test\r\n")
        took, said = seconds_until_end(client.sock, b"X-A: b\r\n")
    assert said.startswith(b"HTTP/1.1 408 ") and 1.5 < took < 6
    assert gate.metric("tollgate_slow_clients_total", at="head") == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_body_is_cut_however_steadily_it_drips(proxy, crm, chunked):
    gate = proxy(**QUICK)
    head = render("POST", "/upload", {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": "100000"})
    with gate.client() as client:
        client.send(head)
        took, said = seconds_until_end(client.sock, b"1\r\na\r\n" if chunked else b"a")
    assert said.startswith(b"HTTP/1.1 408 ") and 1.5 < took < 8
    assert gate.metric("tollgate_slow_clients_total", at="body") == 1
    eventually(lambda: crm.counts()["running"] == 0, 5, "the connection to the CRM is let go")


def test_a_slow_body_that_is_buffered_for_inspection_is_cut_too(proxy, crm, auth):
    gate = proxy(**QUICK)
    with gate.client() as client:
        client.send(render("POST", "/0/odata/$batch", {**auth, "Content-Type": "application/json", "Content-Length": "5000"}))
        took, said = seconds_until_end(client.sock, b" ")
    assert said.startswith(b"HTTP/1.1 408 ") and took < 8
    assert crm.targets() == []


def slow_socket(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock


def test_a_slow_reader_is_cut(proxy, crm):
    gate = proxy(**QUICK)
    with slow_socket(gate.port) as sock:
        sock.sendall(render("GET", f"/bytes/{64 << 20}"))
        time.sleep(1)
        began = time.monotonic()
        eventually(lambda: gate.metric("tollgate_slow_clients_total", at="reply") == 1, 12, "the reader is cut")
        assert time.monotonic() - began < 9
    eventually(lambda: gate.metric("tollgate_connections", side="client", state="active") == 0, 5, "the exchange ends")
    eventually(lambda: crm.counts()["running"] == 0, 5, "the connection to the CRM is let go")


def test_who_is_slow_but_above_the_floor_is_served(proxy, crm):
    """20 KB/s up and down against a floor of 5 KB/s, for three windows."""
    gate = proxy(limits={"rate_window": "2s", "min_body_rate": 5000, "min_reply_rate": 5000})
    down, up = slow_socket(gate.port), Client(gate.port)
    down.sendall(render("GET", f"/bytes/{8 << 20}"))
    up.send(render("POST", "/upload", {"Content-Length": "120000"}))
    for _ in range(60):
        up.send(b"x" * 2000)
        assert down.recv(2000)
        time.sleep(0.1)
    assert up.read().json()["body_length"] == 120_000
    assert gate.metric("tollgate_slow_clients_total") == 0
    up.close()
    down.close()


def slowhttptest(gate, *options, connections=300, seconds=12):
    """Runs the Debian tool; how many of its connections were still open at the end, and whether others were served."""
    command = ["slowhttptest", "-c", str(connections), "-r", "300", "-l", str(seconds), "-p", "3",
               "-u", f"http://127.0.0.1:{gate.port}/bytes/2000000", *options]
    tool = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    slowest = 0.0
    while tool.poll() is None:
        began = time.monotonic()
        assert gate.call("GET", "/echo").status == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.2)
    out = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", tool.stdout.read())
    figures = {name: int(value) for name, value in re.findall(r"^\s*(connected|error|closed|pending):\s+(\d+)", out, re.M)}
    assert figures, out[-2000:]
    return figures, slowest, out


@pytest.mark.parametrize("attack", ["headers", "body", "read"])
def test_slowhttptest_finds_its_connections_closed_and_others_served(proxy, crm, attack):
    gate = proxy(**QUICK)
    options = {"headers": ["-H", "-i", "1"],
               "body": ["-B", "-i", "1", "-s", "100000"],
               "read": ["-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "8", "-k", "10"]}[attack]
    figures, slowest, out = slowhttptest(gate, *options)
    at = {"headers": "head", "body": "body", "read": "reply"}[attack]
    assert gate.metric("tollgate_slow_clients_total", at=at) >= 100, out[-1500:]
    assert slowest < 4, f"others waited {slowest:.2f} s of the 12 that it lasted"
    eventually(lambda: gate.metric("tollgate_connections", side="client", state="active") == 0, 5, f"all are over: {figures}")


# ---------------------------------------------------------------- one address

def test_an_address_has_only_so_many_connections_over_all_workers(proxy, crm):
    gate = proxy(limits={"per_address": {"connections": 10}})
    clients = [gate.client() for _ in range(30)]
    served = 0
    for client in clients:
        try:
            client.send(render("GET", "/echo"))
            served += client.read().status == 200
        except (OSError, Closed):
            pass
    assert served == 10
    assert gate.metric("tollgate_address_refusals_total", because="connections") == 20
    with Client(gate.port, host="127.0.0.1") as more:
        assert more.closed_by_peer()
    for client in clients:
        client.close()
    eventually(lambda: gate.call("GET", "/echo").status == 200, 5, "places that were given back serve again")
    assert "connections of 127.0.0.1 are refused" in gate.log()


def test_networks_that_are_exempt_have_no_limit(proxy, crm):
    gate = proxy(limits={"per_address": {"connections": 1, "request_rate": 1, "exempt": ["127.0.0.0/8"]}})
    clients = [gate.client() for _ in range(20)]
    assert all(client.request("GET", "/echo").status == 200 for client in clients for _ in range(3))
    for client in clients:
        client.close()


def test_an_address_opens_only_so_many_connections_a_second(proxy, crm):
    gate = proxy(limits={"per_address": {"connection_rate": 5, "connection_burst": 10}})
    served = 0
    for _ in range(40):
        try:
            served += gate.call("GET", "/echo").status == 200
        except (OSError, Closed):
            pass
    assert 10 <= served <= 20
    assert gate.metric("tollgate_address_refusals_total", because="rate") == 40 - served


def test_requests_a_second_are_limited_by_address(proxy, crm, auth):
    gate = proxy(limits={"per_address": {"request_rate": 10, "request_burst": 20}})
    with gate.client() as one, gate.client() as two:
        statuses = [client.request("GET", CASES + "/$count", auth).status for _ in range(40) for client in (one, two)]
        refused = one.request("GET", "/echo")
        while refused.status != 429:
            refused = one.request("GET", "/echo")
    assert set(statuses) == {200, 429} and 20 <= statuses.count(200) <= 45
    assert refused.json()["reason"] == "address_rate_exceeded" and refused.get("Retry-After") == "1"
    time.sleep(2.1)
    assert gate.used(auth) == statuses.count(200), "what was refused costs nothing"


def test_behind_a_trusted_proxy_the_client_that_it_names_is_counted(proxy, crm):
    gate = proxy(proxy={"trusted_proxies": ["127.0.0.0/8"]},
                 limits={"per_address": {"connections": 1, "request_rate": 5, "request_burst": 5}})
    statuses = {"2001:db8:1:1::5": [], "2001:db8:1:1::6": [], "192.0.2.1": []}
    with gate.client() as one, gate.client() as two:
        for _ in range(5):
            for address, seen in statuses.items():
                for client in (one, two):
                    seen.append(client.request("GET", "/echo", {"X-Forwarded-For": address}).status)
    assert 5 <= statuses["192.0.2.1"].count(200) <= 8
    # One IPv6 subscriber has one allowance, whatever the lower 64 bits.
    assert 5 <= statuses["2001:db8:1:1::5"].count(200) + statuses["2001:db8:1:1::6"].count(200) <= 8


def test_one_address_cannot_take_the_last_places(proxy, crm):
    """Of 64 places the last 8 go to addresses that hold less than a share of 16; those of others are served."""
    gate = proxy(workers=1, limits={"max_connections": 64}, timeouts={"request_head": "20s"})
    hogs = []
    for _ in range(80):
        sock = socket.socket()
        sock.bind(("127.0.0.2", 0))
        sock.connect(("127.0.0.1", gate.port))
        sock.sendall(b"GET /echo HTTP/1.1\r\nHost")
        hogs.append(sock)
    time.sleep(0.3)
    assert gate.metric("tollgate_address_refusals_total", because="connections") == 80 - 56
    others = [gate.client() for _ in range(8)]
    assert all(client.request("GET", "/echo").status == 200 for client in others)
    for sock in hogs + [client.sock for client in others]:
        sock.close()


# ---------------------------------------------------------------- exhaustion

def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(FLAVOUR == "asan", reason="the sanitizer looks at an object's type through a pipe, so it needs descriptors itself")
def test_running_out_of_file_descriptors_is_survived(proxy, crm):
    gate = proxy()
    gate.call("GET", "/echo")
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (descriptors(gate.pid) + 40, 4096))
    clients = []
    for _ in range(120):
        clients.append(gate.client())
    before = cpu_seconds(gate.pid)
    time.sleep(2)
    spent = cpu_seconds(gate.pid) - before
    assert spent < 0.5, f"{spent:.2f} s of CPU in 2 s: accepting is a busy loop"
    for client in clients:
        client.close()
    eventually(lambda: gate.call("GET", "/echo").status == 200, 10, "descriptors are free again, so calls are served")
    assert gate.metric("tollgate_accept_failures_total") >= 1
    assert gate.log().count("cannot accept connections") <= 2
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (4096, 4096))


@pytest.mark.skipif(FLAVOUR == "asan", reason="the sanitizer looks at an object's type through a pipe, so it needs descriptors itself")
def test_probes_are_answered_when_descriptors_are_used_up(proxy, crm):
    gate = proxy()
    used = set(map(int, os.listdir(f"/proc/{gate.pid}/fd")))
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (min(set(range(len(used) + 1)) - used), 4096))
    clients = [gate.client() for _ in range(10)]
    try:
        eventually(lambda: gate.metric("tollgate_accept_failures_total") >= 1, 10, "nobody else can be accepted")
        idle = [Client(gate.admin_port) for _ in range(5)]
        assert [gate.admin(path).status for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        # One that is being answered keeps the last descriptor; who comes then waits, without work for the proxy.
        with Client(gate.admin_port) as reader:
            reader.send(render("GET", "/metrics") * 1000)
            assert reader.sock.recv(1)
            with Client(gate.admin_port) as waiting:
                waiting.send(render("GET", "/livez"))

                def is_quiet():  # once the replies that nobody takes fill the buffers
                    before = cpu_seconds(gate.pid)
                    time.sleep(1)
                    return cpu_seconds(gate.pid) - before < 0.25

                eventually(is_quiet, 20, "accepting is no busy loop")
                reader.close()
                assert waiting.read().status == 200
        for client in idle + clients:
            client.close()
    finally:
        resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (4096, 4096))


@pytest.mark.parametrize("sent", [b"", b"GET /li", render("POST", "/livez", {"Content-Length": "9"}) + b"half", render("GET", "/livez")])
def test_connections_that_wait_do_not_shut_out_probes(proxy, crm, sent):
    """More than the admin port has places for (64); they are renewed as they are closed."""
    gate = proxy()
    hogs = []
    for _ in range(200):
        hogs.append(socket.create_connection(("127.0.0.1", gate.admin_port), 10))
        hogs[-1].sendall(sent)
    for path in ("/livez", "/readyz", "/metrics") * 3:
        assert gate.admin(path).status == 200
    for hog in hogs:
        hog.close()


def test_a_full_accept_queue_is_worked_off(proxy, crm):
    """Everything that came while the proxy stood still is answered when it goes on."""
    gate = proxy()
    gate.call("GET", "/echo")
    gate.signal(signal.SIGSTOP)
    clients = []
    try:
        for _ in range(1000):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", gate.port))
            clients.append(sock)
        time.sleep(0.5)
    finally:
        gate.signal(signal.SIGCONT)
    answered = 0
    for sock in clients:
        sock.settimeout(20)
        try:
            sock.sendall(render("GET", "/echo", {"Connection": "close"}))
            answered += sock.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            pass
        sock.close()
    assert answered == 1000
    assert gate.call("GET", "/echo").status == 200


@contextlib.contextmanager
def held_up(gate):
    """The process stands still for 200 ms, runs for 20, and so on: whatever is due 100 ms after a turn is 100 ms late."""
    over = threading.Event()

    def pauses():
        while not over.is_set():
            gate.signal(signal.SIGSTOP)
            time.sleep(0.2)
            gate.signal(signal.SIGCONT)
            time.sleep(0.02)

    thread = threading.Thread(target=pauses)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_worker_that_is_late_turns_requests_away_until_it_is_not(proxy, crm):
    gate = proxy(workers=1, overload={"lag": "40ms"})
    with held_up(gate):
        eventually(lambda: gate.metric("tollgate_overload_level") >= 1, 10, "the worker notices that it is late")
        reply = gate.call("GET", "/echo")
        assert reply.status == 503 and reply.json()["reason"] == "overloaded"
        assert gate.metric("tollgate_shed_requests_total") >= 1
    assert gate.metric("tollgate_requests_total", code="503") >= 1
    eventually(lambda: gate.call("GET", "/echo").status == 200, 15, "it keeps up again")
    eventually(lambda: "worker 0 keeps up again" in gate.log(), 5, "and says so")
    assert re.search(r"worker 0 answers .* with 503: it is \d+ ms late", gate.log())


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep what was freed, or notes on all memory")
def test_memory_that_runs_out_turns_requests_away_and_comes_back(proxy, crm, auth):
    """Bodies held for inspection fill 60 MiB: anonymous requests are refused; when they are gone, all are served."""
    gate = proxy(workers=1)
    gate.call("GET", "/echo")
    with open(f"/proc/{gate.pid}/statm", encoding="ascii") as file:
        _, resident, shared = (int(x) * 4096 for x in file.read().split()[:3])
    gate.write_config(overload={"lag": "0s", "memory": resident - shared + (60 << 20)})
    gate.reload()
    eventually(lambda: gate.metric("tollgate_config_last_reload_successful") == 1, 5, "reload")
    holders = []
    for _ in range(15):
        holder = gate.client()
        holder.send(render("POST", "/0/odata/$batch",
                           {**auth, "Content-Type": "application/json", "Content-Length": str(5 << 20)}))
        holder.send(b" " * ((5 << 20) - 1))
        holders.append(holder)
    eventually(lambda: gate.metric("tollgate_overload_level") >= 1, 5, "the proxy notices")
    reply = gate.call("GET", "/echo")
    assert reply.status == 503 and reply.json()["reason"] == "overloaded"
    for holder in holders:
        holder.close()
    eventually(lambda: gate.call("GET", "/echo").status == 200, 15, "memory is given back and all are served")
