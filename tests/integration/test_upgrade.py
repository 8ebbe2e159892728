"""A new version takes over while the old one runs (SIGUSR2). No request is lost, none is counted twice, and whatever goes wrong
with the successor, the old one goes on."""
import collections
import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import PATIENCE, TOLLGATE, Heir, Proxy, Standin, bearer, eventually, free_port
from http1 import Client, Closed, render
from requests_crm import CASES
from test_directory_sync import Users
from test_upstreams import roomy

COUNT = CASES + "/$count"
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def orphans():
    """Successors are waited for like children. Who gave way is ended with the test."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gave_way = []
    yield gave_way
    for process in gave_way:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def readies(gate):
    return gate.log().count(" ready: ")


def successor_of(gate):
    """Its process id, once it has been started."""
    return eventually(lambda: [int(pid) for pid in re.findall(r"upgrade: process (\d+) is started", gate.log())], 20, "it starts")[-1]


@pytest.fixture
def upgrade(orphans):
    """upgrade(gate): returns when the successor serves, which `gate` is from then on; the process that gives way."""

    def take_over(gate):
        seen, old = readies(gate), gate.child
        gate.signal(signal.SIGUSR2)
        eventually(lambda: readies(gate) == seen + 1, 40, "the successor is ready")
        orphans.append(old)
        gate.child = Heir(successor_of(gate))
        return old

    return take_over


def refusals(gate, why):
    return len(re.findall(rf"upgrade refused, this process goes on: .*{why}", gate.log()))


class Crowd:
    """Clients of several kinds until stopped. A connection that is refused, or a request that was sent and met anything but a
    whole reply, is lost; a client that was told so (Connection: close) takes another connection."""

    def __init__(self):
        self.replies, self.lost, self.lock = collections.Counter(), [], threading.Lock()
        self.stopping, self.threads, self.kinds = threading.Event(), [], set()

    def add(self, kind, count, connect, call, kept=True, pause=0.0):
        self.kinds.add(kind)
        for _ in range(count):
            self.threads.append(threading.Thread(target=self.run, args=(kind, connect, call, kept, pause)))

    def run(self, kind, connect, call, kept, pause):
        client = None
        while not self.stopping.is_set():
            began = time.time()
            try:
                client = client or connect()
                reply = call(client)
            except (Closed, OSError) as error:
                with self.lock:
                    self.lost.append((kind, repr(error), began))
                client = None
                continue
            with self.lock:
                self.replies[kind, reply.status] += 1
            if not kept or (reply.get("Connection") or "").lower() == "close":
                client.close()
                client = None
            self.stopping.wait(pause)
        if client is not None:
            client.close()

    def total(self, *kinds):
        with self.lock:
            return sum(count for (kind, _), count in self.replies.items() if not kinds or kind in kinds)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        eventually(lambda: {kind for kind, _ in self.replies} == self.kinds, 20, "every kind of client has been served")
        return self

    def __exit__(self, *unused):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def call(target, headers):
    return lambda client: client.request("GET", target, headers)


def slow_upload(client):
    """Two seconds for a body."""
    body = os.urandom(64) * 4096
    client.send(render("POST", "/upload", {"Content-Length": str(len(body))}))
    for start in range(0, len(body), len(body) // 8):
        time.sleep(0.25)
        client.send(body[start:start + len(body) // 8])
    return client.read("POST")


def slow_download(client):
    """Two seconds for a reply that no socket buffer holds."""
    client.send(render("GET", "/bytes/16000000"))
    received = []

    def take(piece):
        received.append(len(piece))
        time.sleep(2 * len(piece) / 16_000_000)

    reply = client.read("GET", sink=take)
    assert sum(received) == 16_000_000
    return reply


def test_upgrades_under_load_lose_no_request_and_count_each_once(proxy, crm, auth, user, authority, upgrade, tmp_path):
    certificate = authority.issue("upgrade")
    port, tls_port = free_port(), free_port()
    gate = proxy(quotas=roomy(), listeners=[
        {"address": f"127.0.0.1:{port}"},
        {"address": f"127.0.0.1:{tls_port}", "tls": {"certificate_file": certificate[0], "key_file": certificate[1]}}])
    gate.port = port
    context = authority.client_context()
    slow = bearer("slow-" + user)

    def over_tls():
        return Client(tls_port, tls=context)

    crowd = Crowd()
    crowd.add("kept", 3, gate.client, call(COUNT, auth))
    crowd.add("anew", 2, gate.client, call(COUNT, auth), kept=False)
    crowd.add("tls kept", 2, over_tls, call(COUNT, auth))
    crowd.add("tls anew", 1, over_tls, call(COUNT, auth), kept=False)
    crowd.add("thinking", 2, gate.client, call(COUNT, auth), pause=1.4)
    crowd.add("tls thinking", 1, over_tls, call(COUNT, auth), pause=1.3)
    crowd.add("slow", 2, gate.client, call(COUNT, {**slow, "X-Standin-Latency-Ms": "3500"}))
    crowd.add("upload", 1, gate.client, slow_upload)
    crowd.add("download", 1, gate.client, slow_download)
    fast = ("kept", "anew", "tls kept", "tls anew", "thinking", "tls thinking")
    with crowd:
        for _ in range(2):
            old = upgrade(gate)
            before = crowd.total(*fast)
            eventually(lambda: crowd.total(*fast) > before + 200, 30, "the successor serves")
            assert old.wait(40 * PATIENCE) == 0
    assert crowd.lost == []
    assert {status for _, status in crowd.replies} == {200}, crowd.replies
    assert gate.used(auth) == crowd.total(*fast)
    assert gate.used(slow) == crowd.total("slow")
    assert gate.stop() == 0
    calls, interrupted = gate.billed(str(tmp_path))
    assert calls == crowd.total("slow", *fast) and interrupted <= crowd.total("slow")
    lines = collections.Counter(line.get("user") for line in gate.access_lines() if line["path"] == COUNT)
    assert lines == {user: crowd.total(*fast), "slow-" + user: crowd.total("slow")}


def test_the_number_of_workers_and_the_listeners_may_change(proxy, crm, auth, upgrade, tmp_path):
    path = str(tmp_path / "t.sock")
    gate = proxy(workers=3, quotas=roomy(), store_settings={"url": f"embedded:{tmp_path}/store"})
    inet = {"address": f"127.0.0.1:{gate.port}"}
    for workers, listeners in ((1, [inet, {"address": f"unix:{path}"}]), (4, [{"address": f"unix:{path}"}, inet])):
        crowd = Crowd()
        crowd.add("kept", 2, gate.client, call(COUNT, auth))
        crowd.add("anew", 2, gate.client, call(COUNT, auth), kept=False)
        used = gate.used(auth)
        with crowd:
            gate.write_config(workers=workers, listeners=listeners)
            old = upgrade(gate)
            before = crowd.total()
            eventually(lambda: crowd.total() > before + 100, 30, "it serves")
            assert old.wait(40 * PATIENCE) == 0
        assert crowd.lost == [] and {status for _, status in crowd.replies} == {200}, (crowd.lost, crowd.replies)
        assert f"{workers} worker" in gate.log()
        assert gate.used(auth) == used + crowd.total()
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path, "http://crm.test/echo"],
                              capture_output=True, text=True, timeout=20, check=False)
        assert done.stdout == "200"


# ---------------------------------------------------------------- successors that fail

def serves_as_before(gate, auth, child):
    assert gate.child is child and gate.running()
    assert [gate.call("GET", COUNT, auth).status for _ in range(3)] == [200] * 3
    assert gate.admin("/readyz").status == 200
    with gate.client() as client:  # and replies end no connection
        assert client.request("GET", COUNT, auth).get("Connection") is None


def test_a_successor_that_refuses_the_configuration_changes_nothing(proxy, crm, auth):
    gate = proxy()
    gate.write_config(nonsense={"a": 1})
    gate.signal(signal.SIGUSR2)
    eventually(lambda: refusals(gate, "ended with code 78"), 20, "it is refused")
    assert "nonsense" in gate.log() and readies(gate) == 1
    serves_as_before(gate, auth, gate.child)
    gate.write_config(nonsense=None)
    gate.signal(signal.SIGUSR2)
    eventually(lambda: readies(gate) == 2, 40, "the next one takes over")
    old, gate.child = gate.child, Heir(successor_of(gate))
    assert old.wait(40 * PATIENCE) == 0
    serves_as_before(gate, auth, gate.child)


def installed(folder, crm, redis):
    """A proxy whose program can be exchanged."""
    gate = Proxy(str(folder), crm.url, redis.url)
    gate.command[0] = str(folder / "installed")
    os.symlink(TOLLGATE, gate.command[0])
    return gate


def test_a_program_that_is_missing_changes_nothing(start, crm, redis, auth, tmp_path):
    gate = start(installed(tmp_path, crm, redis))
    os.unlink(gate.command[0])
    gate.signal(signal.SIGUSR2)
    eventually(lambda: refusals(gate, "cannot be started: No such file"), 20, "it is refused")
    serves_as_before(gate, auth, gate.child)


@pytest.mark.parametrize("script, why", [("kill -SEGV $$", "ended by signal 11"), ("exit 3", "ended with code 3")])
def test_a_program_that_dies_at_its_start_changes_nothing(start, crm, redis, auth, tmp_path, script, why):
    gate = start(installed(tmp_path, crm, redis))
    os.unlink(gate.command[0])
    with open(os.open(gate.command[0], os.O_WRONLY | os.O_CREAT, 0o755), "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\n{script}\n")
    gate.signal(signal.SIGUSR2)
    eventually(lambda: refusals(gate, why), 20, "it is refused")
    serves_as_before(gate, auth, gate.child)


def small_crowd(gate, auth):
    crowd = Crowd()
    crowd.add("kept", 2, gate.client, call(COUNT, auth))
    crowd.add("anew", 2, gate.client, call(COUNT, auth), kept=False)
    # So that giving way takes its whole time.
    crowd.add("slow", 1, gate.client, call(COUNT, {**auth, "X-Standin-Latency-Ms": "3500"}))
    return crowd


def test_a_successor_that_cannot_start_after_the_other_gave_way_costs_no_request(proxy, crm, auth):
    gate = proxy(quotas=roomy())
    crowd = small_crowd(gate, auth)
    with socket.create_server(("127.0.0.1", 0)) as taken, crowd:
        gate.write_config(admin={"address": f"127.0.0.1:{taken.getsockname()[1]}"})
        gate.signal(signal.SIGUSR2)
        eventually(lambda: "upgrade failed, this process goes on" in gate.log(), 40, "it fails")
        before = crowd.total()
        eventually(lambda: crowd.total() > before + 100, 30, "the old one serves")
    assert crowd.lost == [] and {status for _, status in crowd.replies} == {200}, (crowd.lost, crowd.replies)
    assert gate.used(auth) == crowd.total()
    serves_as_before(gate, auth, gate.child)


def test_a_successor_killed_before_it_serves_costs_no_request(proxy, crm, auth):
    gate = proxy(quotas=roomy())
    crowd = small_crowd(gate, auth)
    with crowd:
        gate.signal(signal.SIGUSR2)
        eventually(lambda: "handing over" in gate.log(), 40, "it gives way")
        os.kill(successor_of(gate), signal.SIGKILL)
        eventually(lambda: re.search(r"upgrade failed, this process goes on: process \d+ ended by signal 9", gate.log()), 40, "it is noticed")
        before = crowd.total()
        eventually(lambda: crowd.total() > before + 100, 30, "the old one serves")
    assert crowd.lost == [] and {status for _, status in crowd.replies} == {200}, (crowd.lost, crowd.replies)
    assert gate.used(auth) == crowd.total()
    serves_as_before(gate, auth, gate.child)


def test_a_successor_killed_when_it_serves_is_not_replaced_and_calls_of_the_old_one_end(proxy, crm, auth, upgrade):
    gate = proxy(quotas=roomy(), timeouts={"drain": "20s"})
    with gate.client() as waiting:
        waiting.send(render("GET", COUNT, {**auth, "X-Standin-Latency-Ms": "8000"}))
        eventually(lambda: crm.counts()["running"] == 1, 5, "a slow call is at the upstream")
        old = upgrade(gate)
        assert gate.call("GET", COUNT, auth).status == 200
        gate.child.kill()
        assert waiting.read().status == 200
    assert old.wait(20 * PATIENCE) == 0
    gate.child.wait(10)
    with pytest.raises(OSError):
        gate.client()
    gate.start()  # as a supervisor does
    assert gate.used(auth) == 2


# ---------------------------------------------------------------- signals meanwhile

def test_a_second_upgrade_is_refused_while_one_is_under_way(proxy, crm, auth, upgrade):
    gate = proxy(timeouts={"drain": "20s"})
    with gate.client() as waiting:
        waiting.send(render("POST", "/upload", {"Content-Length": "2000"}) + b"x" * 1000)  # ends when the test wants it to
        gate.signal(signal.SIGUSR2)
        successor = successor_of(gate)
        gate.signal(signal.SIGUSR2)
        eventually(lambda: gate.log().count("upgrade refused: one is under way") == 1, 10, "it is refused")
        eventually(lambda: readies(gate) == 2, 40, "the first goes on")
        old, gate.child = gate.child, Heir(successor)
        old.send_signal(signal.SIGUSR2)  # it ends its calls
        eventually(lambda: gate.log().count("upgrade refused: one is under way") == 2, 10, "it is refused")
        old.send_signal(signal.SIGTERM)
        eventually(lambda: "draining already" in gate.log(), 10, "it has heard it")
        waiting.send(b"x" * 1000)
        assert waiting.read("POST").status == 200, "told to stop, it goes on ending its calls"
    assert old.wait(20 * PATIENCE) == 0
    assert gate.log().count("is started") == 1
    serves_as_before(gate, auth, gate.child)


def test_told_to_stop_before_the_successor_serves_both_end(proxy, crm, auth):
    gate = proxy()
    gate.signal(signal.SIGUSR2)
    successor = successor_of(gate)
    gate.signal(signal.SIGTERM)
    assert gate.child.wait(20 * PATIENCE) == 0
    eventually(lambda: not os.path.exists(f"/proc/{successor}"), 20, "the successor has ended too")
    with pytest.raises(OSError):
        gate.client()


def test_a_supervisor_is_told_who_serves(start, crm, redis, auth, tmp_path, upgrade):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20 * PATIENCE)
        gate = Proxy(str(tmp_path), crm.url, redis.url)
        gate.env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        start(gate)
        assert supervisor.recv(100) == b"READY=1"
        old = upgrade(gate)
        assert supervisor.recv(100) == b"MAINPID=%d" % gate.pid
        assert old.wait(20 * PATIENCE) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a process 1 of its own needs root")
def test_process_1_of_a_container_refuses(start, crm, redis, auth, tmp_path):
    gate = Proxy(str(tmp_path), crm.url, redis.url)
    gate.command = ["unshare", "--pid", "--fork", "--kill-child", *gate.command]
    start(gate)
    with open(f"/proc/{gate.pid}/task/{gate.pid}/children", encoding="ascii") as file:
        inner = int(file.read())
    try:
        os.kill(inner, signal.SIGUSR2)
        eventually(lambda: refusals(gate, "process 1"), 10, "it is refused")
        serves_as_before(gate, auth, gate.child)
    finally:
        os.kill(inner, signal.SIGTERM)
    assert gate.child.wait(20 * PATIENCE) == 0


def test_the_successor_knows_the_users_of_the_crm_from_the_first_call_on(proxy, crm, start, tmp_path, upgrade):
    lister = start(Standin(str(tmp_path), "lister"))
    users = Users(lister)
    users.add("ann")
    (tmp_path / "robot.password").write_text("secret\n")
    gate = proxy(identity={"directory": {"sync": {"url": lister.url + "/0", "user": "robot", "interval": "1s",
                                                  "password_file": str(tmp_path / "robot.password")}}})
    ann = bearer("ann", licenses=())
    assert gate.call("GET", CASES, ann).status == 200
    lister.stop()
    old = upgrade(gate)
    assert gate.call("GET", CASES, ann).status == 200
    assert old.wait(40 * PATIENCE) == 0
    lister.start()
    Users(lister).add("bob")
    eventually(lambda: gate.call("GET", CASES, bearer("bob", licenses=())).status == 200, 60, "the successor asks the CRM itself")
