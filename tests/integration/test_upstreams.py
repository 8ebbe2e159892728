"""Several servers of the CRM: who gets the calls, who is left out, what is repeated, and each ending's reason."""
import collections
import contextlib
import signal
import socket
import threading
import time

import pytest

from harness import PATIENCE, Standin, bearer, eventually
from http1 import Closed
from origin import Exchange, Origin
from requests_crm import CASES, JSON

COUNT = CASES + "/$count"


@pytest.fixture
def pair(start, tmp_path):
    return [start(Standin(str(tmp_path), name=f"crm-{i}")) for i in range(2)]


def requests_at(servers):
    """Calls that each has seen; asking is one itself."""
    return [len([t for t in server.targets() if "_standin" not in t and "/health" not in t]) for server in servers]


def two(pair, **changes):
    return {"upstream": [server.url for server in pair], "workers": 1, "upstreams": {"crm": changes}}


class Load:
    """Calls on kept connections until stopped: what each got, by (method, status, reason)."""

    def __init__(self, gate, headers, clients=8, method="GET", target=COUNT, body=None):
        self.results, self.lost = collections.Counter(), []
        self.gate, self.headers, self.method, self.target, self.body = gate, headers, method, target, body
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        client = None
        while not self.stopping.is_set():
            try:
                if client is None:
                    client = self.gate.client()
                reply = client.request(self.method, self.target, self.headers, self.body)
            except (Closed, OSError) as error:
                with self.lock:
                    self.lost.append(repr(error))
                client = None
                continue
            reason = reply.json()["reason"] if reply.status >= 400 and reply.body.startswith(b"{") else "ok"
            with self.lock:
                self.results[(self.method, reply.status, reason)] += 1
            if (reply.get("Connection") or "").lower() == "close":
                client.close()
                client = None
        if client is not None:
            client.close()

    def total(self):
        with self.lock:
            return sum(self.results.values())

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        eventually(lambda: self.total() > 0, 10, "the load runs")
        return self

    def __exit__(self, *unused):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def roomy(user_limit=1_000_000):
    return [{"name": "daily", "limit": user_limit, "window": "24h", "per": ["user"], "on": "licensed"}]


def test_weights_share_out_the_calls(proxy, pair, auth):
    gate = proxy(**two(pair, weights={pair[0].url: 3}))
    for _ in range(40):
        assert gate.call("GET", COUNT, auth).status == 200
    assert requests_at(pair) == [30, 10]
    assert gate.metric("tollgate_upstream_requests_total", server=pair[0].url) == 30


def test_a_hash_keeps_each_user_with_a_server(proxy, pair):
    gate = proxy(**two(pair, balance="hash"))
    users = [f"hash-{i}" for i in range(12)]
    for user in users:
        for _ in range(3):
            assert gate.call("GET", f"{CASES}/$count?user={user}", bearer(user)).status == 200
    homes = [{t.split("user=")[1] for t in server.targets() if "user=" in t} for server in pair]
    assert homes[0] | homes[1] == set(users) and not homes[0] & homes[1]
    assert homes[0] and homes[1]


def test_fewest_connections_go_round_a_slow_server(proxy, pair, auth):
    gate = proxy(**two(pair, balance="least_connections"), quotas=roomy())
    pair[0].settings(latency_ms=300)
    with Load(gate, auth, clients=6) as load:
        eventually(lambda: load.total() > 150, 20, "calls went through")
    slow, fast = requests_at(pair)
    assert fast > 5 * slow > 0, (slow, fast)


def test_a_server_that_fails_its_health_check_gets_nothing_until_it_is_well(proxy, pair, auth):
    gate = proxy(**two(pair, health_check={"path": "/health", "interval": "200ms", "timeout": "150ms",
                                           "unhealthy_threshold": 2, "healthy_threshold": 2, "statuses": ["200"]}))
    eventually(lambda: gate.metric("tollgate_upstream_health_checks_total", result="passed") >= 4, 10, "checks run")
    pair[0].signal(signal.SIGSTOP)  # accepts, and never answers
    try:
        eventually(lambda: gate.metric("tollgate_upstream_healthy", server=pair[0].url) == 0, 10, "seen as down")
        started = time.monotonic()
        assert [gate.call("POST", CASES, {**auth, **JSON}, b"{}").status for _ in range(6)] == [201] * 6
        assert time.monotonic() - started < 2 * PATIENCE
        assert "is down: health check /health: no reply in time" in gate.log()
    finally:
        pair[0].signal(signal.SIGCONT)
    eventually(lambda: gate.metric("tollgate_upstream_healthy", server=pair[0].url) == 1, 10, "seen as well again")
    before = requests_at(pair)[0]
    assert [gate.call("GET", COUNT, auth).status for _ in range(4)] == [200] * 4
    assert requests_at(pair)[0] > before


def test_no_server_that_is_well_is_503_at_once_and_free(proxy, pair, auth):
    gate = proxy(**two(pair, health_check={"path": "/status/500", "interval": "200ms", "timeout": "150ms"}))
    eventually(lambda: gate.metric("tollgate_upstream_healthy") == 0, 10, "both are down")
    reply = gate.call("GET", COUNT, auth)
    assert reply.status == 503 and reply.json()["reason"] == "upstream_unavailable" and reply.get("Retry-After")
    eventually(lambda: gate.used(auth) == 0, 5, "given back")
    assert not any(CASES in target for server in pair for target in server.targets())


def test_a_server_that_fails_calls_in_a_row_is_left_out(proxy, pair, auth):
    gate = proxy(**two(pair, outlier={"failures": 3, "ejection": "1s"}))
    pair[0].settings(fault="garbage")
    statuses = [gate.call("POST", CASES, {**auth, **JSON}, b"{}").status for _ in range(20)]
    assert statuses.count(502) == 3, "three failed, then all went to the other"
    assert gate.metric("tollgate_upstream_ejections_total", server=pair[0].url) == 1
    assert gate.metric("tollgate_upstream_healthy", server=pair[0].url) == 0
    assert "is left out for 1000 ms after 3 failed calls in a row" in gate.log()
    pair[0].settings(fault="")
    eventually(lambda: gate.metric("tollgate_upstream_healthy", server=pair[0].url) == 1, 10, "back after a second")
    assert [gate.call("POST", CASES, {**auth, **JSON}, b"{}").status for _ in range(10)] == [201] * 10


def test_a_retry_goes_to_the_other_server_and_costs_once(proxy, pair, auth):
    gate = proxy(**two(pair, retry_on=["connect", "closed", "timeout", "503"], response_timeout="300ms",
                       outlier={"failures": 0}))
    for fault in ("close_before_reply", "stall"):
        pair[0].settings(fault=fault)
        assert [gate.call("GET", COUNT, auth).status for _ in range(4)] == [200] * 4
    pair[0].settings(fault="")
    assert gate.used(auth) == 8
    assert gate.metric("tollgate_upstream_retries_total") >= 4


def test_a_chunked_request_without_data_is_repeated_with_its_end(proxy):
    """Or the next request on the connection, somebody else's, would be read as its body."""
    closing, well = Origin(), Origin()
    closing.script["/echo"] = Exchange([None])
    gate = proxy(**two([closing, well], max_idle_connections=1, outlier={"failures": 0}))
    empty = b"DELETE /echo HTTP/1.1\r\nHost: crm.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    plain = b"GET /echo?plain HTTP/1.1\r\nHost: crm.test\r\n\r\n"
    try:
        for request in [empty, plain] * 4:
            with socket.create_connection(("127.0.0.1", gate.port), PATIENCE) as sock:
                sock.sendall(request)
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), request
        assert closing.requests() and not closing.invalid() + well.invalid()
        assert all(connection.rest == b"" for connection in well.seen())
        assert [request.start[1] for request in well.requests()].count("/echo") == 4
    finally:
        closing.close()
        well.close()


def test_a_server_that_is_late_in_all_is_left_out(proxy, pair):
    gate = proxy(**two(pair, total_timeout="200ms", outlier={"failures": 2, "ejection": "60s"}))
    pair[0].settings(fault="stall")
    reasons = [gate.call("GET", "/echo").status for _ in range(10)]
    assert reasons.count(504) == 2, "two failed, then all went to the other"
    assert gate.metric("tollgate_upstream_ejections_total", server=pair[0].url) == 1


def test_who_waits_for_a_slow_crm_to_say_go_on_is_no_slow_client(proxy):
    """RFC 9110 section 10.1.1: the client owes nothing until then."""
    crm = socket.create_server(("127.0.0.1", 0))
    gate = proxy(upstream=f"http://127.0.0.1:{crm.getsockname()[1]}", workers=1,
                 limits={"rate_window": "1s", "min_body_rate": 1000}, timeouts={"request_body": "1s"})
    with crm, socket.create_connection(("127.0.0.1", gate.port), PATIENCE) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        server, _ = crm.accept()
        with server:
            server.settimeout(PATIENCE)
            while b"\r\n\r\n" not in server.recv(65536, socket.MSG_PEEK):
                pass
            server.recv(65536)
            time.sleep(3)  # longer than any client may take
            server.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
            client.sendall(b"body")
            assert server.recv(65536) == b"body"
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert gate.metric("tollgate_slow_clients_total", at="body") == 0


def test_the_budget_bounds_repeating(proxy, pair, auth):
    gate = proxy(**two(pair, retry_budget=0, outlier={"failures": 0}))
    pair[0].settings(fault="close_before_reply")
    replies = [gate.call("GET", COUNT, auth) for _ in range(6)]
    assert collections.Counter(reply.status for reply in replies) == {200: 3, 502: 3}
    assert {reply.json()["reason"] for reply in replies if reply.status == 502} == {"upstream_closed"}
    assert gate.metric("tollgate_upstream_retries_refused_total") == 3
    assert gate.used(auth) == 6  # it may have received them


def test_silence_while_connecting_is_504_with_its_own_reason_and_free(proxy, crm, auth):
    with socket.socket() as deaf:  # its queue is full: further connections get no answer
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            time.sleep(0.2)
            gate = proxy(upstream=f"http://127.0.0.1:{deaf.getsockname()[1]}", upstreams={"crm": {"connect_timeout": "300ms"}})
            reply = gate.call("GET", COUNT, auth)
            assert reply.status == 504 and reply.json()["reason"] == "upstream_connect_timeout"
            eventually(lambda: gate.used(auth) == 0, 5, "given back")
        finally:
            for filler in fillers:
                filler.close()


def test_a_burst_at_a_unix_socket_waits_for_room_in_its_queue(proxy, auth, tmp_path):
    path = str(tmp_path / "crm.sock")
    with socket.create_server(path, family=socket.AF_UNIX, backlog=1) as narrow:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = narrow.accept()
                    with peer:
                        peer.recv(65536)
                        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

        threading.Thread(target=serve, daemon=True).start()
        gate = proxy(upstream=f"unix:{path}", workers=1, upstreams={"crm": {"connect_timeout": "20s"}})
        with contextlib.ExitStack() as clients:
            burst = [clients.enter_context(gate.client()) for _ in range(40)]
            for client in burst:
                client.send(f"GET {COUNT} HTTP/1.1\r\nHost: a\r\nAuthorization: {auth['Authorization']}\r\n\r\n".encode())
            assert collections.Counter(client.read().status for client in burst) == {200: 40}
        narrow.shutdown(socket.SHUT_RDWR)  # ends accept()


def test_the_total_time_bounds_a_reply_that_trickles(proxy, crm, auth):
    gate = proxy(upstreams={"crm": {"total_timeout": "500ms"}})
    started = time.monotonic()
    reply = gate.call("GET", COUNT, {**auth, "X-Standin-Latency-Ms": "5000"})
    assert reply.status == 504 and reply.json()["reason"] == "upstream_deadline"
    assert 0.4 <= time.monotonic() - started <= 2 * PATIENCE
    with gate.client() as client:
        with pytest.raises(Closed):
            client.request("GET", CASES, {**auth, "X-Standin-Fault": "stall_mid_body"})
    eventually(lambda: gate.metric("tollgate_calls_total", reason="upstream_deadline") == 2, 5, "both have the reason")


def test_a_killed_server_under_load_loses_nothing_that_may_be_repeated(proxy, pair, auth, user):
    """GETs all succeed. A POST that was at the server when it died is answered 502 upstream_closed and stays charged, for it
    may have been carried out; every other one succeeds. Each call is charged once."""
    gate = proxy(**two(pair), quotas=roomy())
    for server in pair:
        server.settings(latency_ms=5)
    readers, writers = 8, 4
    writer = bearer("writer-" + user)
    with Load(gate, auth, readers) as reads, Load(gate, {**writer, **JSON}, writers, "POST", CASES, b"{}") as writes:
        eventually(lambda: reads.total() > 200 and writes.total() > 100, 30, "load on both")
        pair[0].kill()
        at_kill = reads.total()
        eventually(lambda: reads.total() > at_kill + 300, 30, "it goes on")
        pair[0].start()
        eventually(lambda: requests_at(pair[:1])[0] > 20, 30, "the restarted server is used again")
    assert reads.lost == [] and writes.lost == []
    assert set(reads.results) == {("GET", 200, "ok")}, reads.results
    failed = writes.results.pop(("POST", 502, "upstream_closed"), 0)
    assert set(writes.results) == {("POST", 201, "ok")}, writes.results
    assert failed <= writers, "only what was at the server when it died"
    assert gate.used(auth) == sum(reads.results.values())
    assert gate.used(writer) == sum(writes.results.values()) + failed
