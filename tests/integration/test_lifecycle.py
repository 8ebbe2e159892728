"""Start, reload, drain, stop."""
import collections
import signal
import threading
import time

import pytest

from harness import PATIENCE, Client, Proxy, Standin, eventually, free_port, token
from http1 import Closed, render
from requests_crm import CASES


def quota(limit):
    return [{"name": "daily", "limit": limit, "window": "24h", "per": ["user"], "on": "licensed"}]


def test_a_good_reload_takes_effect_and_drops_no_request(proxy, crm, auth):
    gate = proxy(quotas=quota(1))
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(2)] == [200, 429]
    failures, stop = [], threading.Event()

    def traffic():
        with gate.client() as client:
            while not stop.is_set():
                if client.request("GET", "/echo").status != 200:
                    failures.append("status")

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with gate.client() as waiting:  # begun under the old settings
            waiting.send(render("GET", "/echo", {"X-Standin-Latency-Ms": "500"}))
            gate.write_config(quotas=quota(3))
            gate.reload()
            eventually(lambda: gate.call("GET", CASES + "/$count", auth).status == 200, 10, "the new limit holds")
            assert waiting.read().status == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert gate.used(auth) == 2  # the counts were kept
    assert gate.metric("tollgate_config_last_reload_successful") == 1


def test_a_bad_reload_changes_nothing_and_is_visible(proxy, crm, auth):
    gate = proxy(quotas=quota(5))
    stamp = gate.metric("tollgate_config_last_reload_success_timestamp_seconds")
    gate.write_config(quotas=quota(1), nonsense={"a": 1})
    gate.reload()
    eventually(lambda: gate.metric("tollgate_config_last_reload_successful") == 0, 10, "the failure is counted")
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(3)] == [200] * 3
    assert gate.metric("tollgate_config_last_reload_success_timestamp_seconds") == stamp
    assert "nonsense" in gate.log()
    gate.write_config(nonsense=None)
    gate.reload()
    eventually(lambda: gate.metric("tollgate_config_last_reload_successful") == 1, 10, "a good reload mends it")
    assert gate.call("GET", CASES + "/$count", auth).status == 429


def test_a_reload_can_change_the_upstream(proxy, crm, start, tmp_path, auth):
    other = start(Standin(str(tmp_path), name="other"))
    gate = proxy()
    assert gate.call("GET", "/echo").status == 200
    gate.write_config(upstreams={"crm": {"servers": [other.url]}})
    gate.reload()
    eventually(lambda: gate.call("GET", "/echo").status == 200 and other.counts()["requests"] > 0, 10, "the other server is used")


def test_a_reload_can_add_a_listener(proxy, crm):
    gate = proxy()
    port = free_port()
    gate.write_config(listeners=[{"address": f"127.0.0.1:{gate.port}"}, {"address": f"127.0.0.1:{port}"}])
    gate.reload()

    def answers():
        with Client(port) as client:
            return client.request("GET", "/echo").status == 200

    eventually(answers, 10, "the new listener answers")
    assert gate.call("GET", "/echo").status == 200


def test_sigterm_finishes_calls_in_flight_and_ends_with_0(proxy, crm, auth):
    gate = proxy(workers=1)
    with gate.client() as busy, gate.client() as idle:
        assert idle.request("GET", "/echo").status == 200
        busy.send(render("GET", CASES + "/$count", {**auth, "X-Standin-Latency-Ms": "1000"}))
        eventually(lambda: crm.counts()["running"] == 1, 5, "the call is at the upstream")
        gate.signal(signal.SIGTERM)
        reply = busy.read()
        assert reply.status == 200 and reply.get("Connection") == "close"
        assert idle.closed_by_peer()
    assert gate.child.wait(10) == 0
    with pytest.raises(OSError):
        Client(gate.port, timeout=1).close()


def test_a_drain_ends_after_its_limit(proxy, crm, auth):
    gate = proxy(workers=1, timeouts={"drain": "500ms"})
    with gate.client() as busy:
        busy.send(render("GET", CASES + "/$count", {**auth, "X-Standin-Fault": "stall"}))
        eventually(lambda: crm.counts()["running"] == 1, 5, "the call is at the upstream")
        started = time.monotonic()
        gate.signal(signal.SIGTERM)
        gate.child.wait(15)
        assert time.monotonic() - started < 5 * PATIENCE
        with pytest.raises((Closed, AssertionError)):
            assert busy.read().status == 200


def test_readyz_says_no_before_the_listeners_close(proxy, crm):
    gate = proxy(timeouts={"drain_delay": "1500ms"})
    gate.signal(signal.SIGTERM)
    eventually(lambda: gate.admin("/readyz").status == 503, 1, "not ready")
    assert gate.admin("/livez").status == 200
    assert gate.call("GET", "/echo").status == 200  # still served
    assert gate.child.wait(15) == 0


def test_sigint_stops_like_sigterm(proxy, crm):
    gate = proxy()
    gate.signal(signal.SIGINT)
    assert gate.child.wait(10 * PATIENCE) == 0


def test_a_taken_port_is_a_clear_error(proxy, crm, tmp_path, redis):
    gate = proxy()
    other = Proxy(str(tmp_path), crm.url, redis.url, "second", {"listeners": [{"address": f"127.0.0.1:{gate.port}"}], "admin": {"address": ""}})
    other.write_config()
    # Two workers of one proxy share a port on purpose; two proxies must not do so by accident.
    other.launch()
    try:
        assert other.child.wait(10 * PATIENCE) != 0
        assert str(gate.port) in other.log()
    finally:
        other.kill()


def test_a_bad_config_ends_with_78_and_names_the_place(tmp_path, crm, redis):
    gate = Proxy(str(tmp_path), crm.url, redis.url)
    gate.write_config(listenrs=[])
    gate.launch()
    assert gate.child.wait(10 * PATIENCE) == 78
    assert "listenrs" in gate.log() and "listeners" in gate.log()


def test_the_log_is_reopened_on_sigusr1(proxy, crm):
    import os
    gate = proxy()
    assert gate.call("GET", "/echo").status == 200
    path = os.path.join(gate.folder, "access.log")
    eventually(lambda: len(gate.access_lines()) == 1, 10, "a line was written")
    os.rename(path, path + ".1")
    gate.signal(signal.SIGUSR1)
    eventually(lambda: gate.call("GET", "/echo").status == 200 and os.path.exists(path) and len(gate.access_lines()) >= 1, 10, "a new file")


def test_tokens_keep_working_over_a_reload_and_stop_with_their_secret(proxy, crm, user):
    gate = proxy()
    headers = {"Authorization": "Bearer " + token(user)}
    assert gate.call("GET", CASES + "/$count", headers).status == 200
    gate.reload()
    assert gate.call("GET", CASES + "/$count", headers).status == 200
    gate.write_file("hs256.key", "another-secret-another-secret-another-secret")
    gate.reload()
    eventually(lambda: gate.call("GET", CASES + "/$count", headers).status == 401, 10, "the old secret's tokens are refused")


def test_a_drain_under_load_answers_every_request_it_accepted(proxy, crm):
    """Clients on kept connections and clients with a connection a request, up to the moment when nobody listens."""
    gate = proxy()
    outcomes, lost, lock = collections.Counter(), [], threading.Lock()

    def talk(keep):
        client = None
        while True:
            try:
                client = client or gate.client()
            except OSError:
                return  # nobody listens any more: refused before anything was sent
            try:
                reply = client.request("GET", "/echo")
            except (Closed, OSError) as error:
                with lock:
                    lost.append(repr(error))
                return
            with lock:
                outcomes[reply.status] += 1
            if not keep or (reply.get("Connection") or "").lower() == "close":
                client.close()
                client = None

    threads = [threading.Thread(target=talk, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: outcomes[200] > 200, 10, "the load runs")
    gate.signal(signal.SIGTERM)
    for thread in threads:
        thread.join(20 * PATIENCE)
        assert not thread.is_alive()
    assert gate.child.wait(20 * PATIENCE) == 0
    assert lost == [] and set(outcomes) == {200}
    assert sum(line["path"] == "/echo" for line in gate.access_lines()) == outcomes[200]


def test_a_connection_that_was_just_opened_gets_its_request_answered_in_a_drain(proxy, crm):
    gate = proxy(workers=1)
    with gate.client() as used, gate.client() as fresh:
        gate.signal(signal.SIGTERM)
        while used.request("GET", "/echo").get("Connection") != "close":
            pass
        reply = fresh.request("GET", "/echo")
        assert reply.status == 200 and reply.get("Connection") == "close"
    assert gate.child.wait(10 * PATIENCE) == 0
