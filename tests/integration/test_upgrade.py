"""A new version takes over the listening sockets; a drain closes no connection that a request is on its way on."""
import signal
import threading
import time

from harness import PATIENCE, bearer, eventually
from http1 import render
from test_upstreams import COUNT, Load, roomy


def readies(gate):
    return gate.log().count(" ready: ")


def test_an_upgrade_under_load_loses_no_request_and_counts_each_once(proxy, crm, auth, user):
    gate = proxy(quotas=roomy(), workers=2)
    slow = bearer("slow-" + user)
    pid, first = gate.pid, readies(gate)
    with Load(gate, auth, clients=8) as load, gate.client() as waiting:
        waiting.send(render("GET", COUNT, {**slow, "X-Standin-Latency-Ms": "1500"}))
        eventually(lambda: crm.counts()["running"] >= 1, 5, "a slow call is at the upstream")
        for number in range(1, 3):
            gate.signal(signal.SIGUSR2)
            eventually(lambda: readies(gate) == first + number, 30, "the successor is ready")
            before = load.total()
            eventually(lambda: load.total() > before + 200, 30, "it serves")
            if number == 1:
                assert waiting.read().status == 200, "what was under way ended under the old program"
    assert load.lost == []
    assert set(load.results) == {("GET", 200, "ok")}, load.results
    assert gate.running() and gate.pid == pid
    assert gate.used(auth) == load.total()
    assert gate.used(slow) == 1
    eventually(lambda: sum(line.get("user") == user and line["path"] == COUNT for line in gate.access_lines())
               == load.total(), 10, "one line a call")


def test_an_upgrade_to_something_that_does_not_start_changes_nothing(proxy, crm, auth):
    gate = proxy()
    gate.write_config(nonsense={"a": 1})
    gate.signal(signal.SIGUSR2)
    eventually(lambda: "upgrade refused" in gate.log(), 10, "it is refused")
    assert [gate.call("GET", COUNT, auth).status for _ in range(3)] == [200] * 3
    assert readies(gate) == 1 and gate.admin("/readyz").status == 200


def test_an_upgrade_may_change_the_number_of_workers(proxy, crm, auth):
    gate = proxy(workers=3, quotas=roomy())
    for workers in (1, 4):
        with Load(gate, auth, clients=6) as load:
            gate.write_config(workers=workers)
            seen = readies(gate)
            gate.signal(signal.SIGUSR2)
            eventually(lambda: readies(gate) == seen + 1, 30, "the successor is ready")
            before = load.total()
            eventually(lambda: load.total() > before + 100, 30, "it serves")
        assert load.lost == [] and set(load.results) == {("GET", 200, "ok")}, (load.lost, load.results)
        assert f"{workers} worker" in gate.log()


def test_a_drain_under_load_answers_every_request_it_accepted(proxy, crm, auth):
    """Clients that keep sending on their connections: each is answered, the last time with Connection: close."""
    gate = proxy(quotas=roomy())
    outcomes, lock = [], threading.Lock()

    def talk():
        with gate.client() as client:
            while True:
                reply = client.request("GET", COUNT, auth)
                with lock:
                    outcomes.append(reply.status)
                if (reply.get("Connection") or "").lower() == "close":
                    return
                time.sleep(0.01)

    threads = [threading.Thread(target=talk) for _ in range(12)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(outcomes) > 100, 10, "the load runs")
    gate.signal(signal.SIGTERM)
    for thread in threads:
        thread.join(20 * PATIENCE)
        assert not thread.is_alive()
    assert gate.child.wait(20 * PATIENCE) == 0
    assert set(outcomes) == {200}
    assert len(gate.access_lines()) == len(outcomes), "each was answered and none was cut"
