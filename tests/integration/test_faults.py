"""The upstream misbehaves: the caller gets a clean reply, the next call works."""
import time

import pytest

from harness import PATIENCE, Standin, bearer, eventually, free_port
from http1 import Closed, render
from requests_crm import CASES, JSON


@pytest.mark.parametrize("fault, status, reason", [
    ("close_before_reply", 502, "upstream_closed"),
    ("reset_before_reply", 502, "upstream_closed"),
    ("close_mid_head", 502, "upstream_invalid"),
    ("garbage", 502, "upstream_invalid"),
    ("two_lengths", 502, "upstream_invalid"),
    ("length_and_chunked", 502, "upstream_invalid"),
    ("bare_lf", 502, "upstream_invalid"),
])
def test_a_broken_reply_is_502(gate, crm, auth, fault, status, reason):
    reply = gate.call("POST", CASES, {**auth, **JSON, "X-Standin-Fault": fault}, b"{}")
    assert reply.status == status, reply
    assert reply.json()["reason"] == reason
    assert gate.call("GET", CASES + "/$count", auth).status == 200


def test_silence_is_504_after_the_configured_time(proxy, crm, auth):
    gate = proxy(upstreams={"crm": {"response_timeout": "300ms"}})
    started = time.monotonic()
    reply = gate.call("GET", CASES, {**auth, "X-Standin-Fault": "stall"})
    assert reply.status == 504 and reply.json()["reason"] == "upstream_timeout"
    assert 0.25 <= time.monotonic() - started <= 2 * PATIENCE


@pytest.mark.parametrize("fault", ["close_mid_body", "close_mid_chunk"])
def test_a_cut_body_is_seen_as_cut(gate, crm, auth, fault):
    with gate.client() as client:
        with pytest.raises(Closed):
            client.request("GET", CASES, {**auth, "X-Standin-Fault": fault})


def test_a_body_that_stalls_is_cut_after_the_idle_time(proxy, crm, auth):
    gate = proxy(upstreams={"crm": {"idle_timeout": "300ms"}})
    with gate.client() as client:
        with pytest.raises(Closed):
            client.request("GET", CASES, {**auth, "X-Standin-Fault": "stall_mid_body"})


def test_nobody_listens_is_502_and_the_usage_stays(proxy, crm, auth):
    gate = proxy(upstream=f"http://127.0.0.1:{free_port()}")
    reply = gate.call("GET", CASES, auth)
    assert reply.status == 502 and reply.json()["reason"] == "upstream_unreachable"
    eventually(lambda: gate.used(auth) == 0, 5, "given back")


def test_a_dead_server_is_passed_over(proxy, crm, auth):
    gate = proxy(upstream=[f"http://127.0.0.1:{free_port()}", crm.url])
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(6)] == [200] * 6
    assert gate.used(auth) == 6


def test_a_restarted_upstream_is_found_again(proxy, start, tmp_path, auth):
    crm = start(Standin(str(tmp_path), name="own"))
    gate = proxy(upstream=crm.url)
    with gate.client() as client:
        assert client.request("GET", CASES + "/$count", auth).status == 200
        crm.stop()
        crm.start()
        assert client.request("GET", CASES + "/$count", auth).status == 200


def test_errors_of_the_upstream_are_its_own(gate, crm):
    reply = gate.call("GET", "/status/503", bearer("s", user_type="staff"))
    assert reply.status == 503 and reply.body == b"status 503\n"


def test_a_slow_upstream_does_not_slow_the_others(proxy, crm, auth):
    gate = proxy(workers=1)
    with gate.client() as slow:
        slow.send(render("GET", CASES + "/$count", {**auth, "X-Standin-Latency-Ms": "1500"}))
        started = time.monotonic()
        assert gate.call("GET", "/echo").status == 200
        assert time.monotonic() - started < 1.0
        assert slow.read().status == 200


def test_a_client_that_never_finishes_its_head_is_timed_out(proxy, crm):
    gate = proxy(timeouts={"request_head": "300ms"})
    with gate.client() as client:
        client.send(b"GET /echo HTTP/1.1\r\nHost: crm.test\r\nX-Slow: ")
        try:
            assert client.read().status == 408
        except Closed:
            pass
        assert client.closed_by_peer()


def test_an_idle_connection_is_closed(proxy, crm):
    gate = proxy(timeouts={"client_idle": "300ms"})
    with gate.client() as client:
        assert client.request("GET", "/echo").status == 200
        assert client.closed_by_peer(5 * PATIENCE)


def test_a_body_that_pauses_is_timed_out(proxy, crm):
    gate = proxy(timeouts={"request_body": "300ms"})
    with gate.client() as client:
        client.send(b"POST /upload HTTP/1.1\r\nHost: crm.test\r\nContent-Length: 100\r\n\r\nhello")
        try:
            assert client.read().status in (408, 504)
        except Closed:
            pass
        assert client.closed_by_peer()


def test_a_busy_upstream_is_waited_for_and_then_given_up(proxy, crm, auth):
    gate = proxy(workers=1, upstreams={"crm": {"max_connections": 1, "queue_timeout": "300ms"}})
    with gate.client() as first, gate.client() as second:
        first.send(render("GET", CASES + "/$count", {**auth, "X-Standin-Latency-Ms": "2500"}))
        eventually(lambda: crm.counts()["running"] == 1, 5, "the only connection is busy")
        refused = second.request("GET", CASES + "/$count", auth)
        assert refused.status == 503 and refused.json()["reason"] == "overloaded"
        assert first.read().status == 200
        assert second.request("GET", CASES + "/$count", auth).status == 200
    eventually(lambda: gate.used(auth) == 2, 5, "the call that was given up is given back")


def test_connections_beyond_the_cap_do_not_harm_busy_ones(proxy, crm):
    gate = proxy(workers=1, limits={"max_connections": 5})
    busy = [gate.client() for _ in range(5)]
    try:
        for client in busy:
            client.send(render("GET", "/echo", {"X-Standin-Latency-Ms": "2000"}))
        eventually(lambda: crm.counts()["running"] == 5, 5, "all five are busy")
        with gate.client() as extra:
            try:
                assert extra.request("GET", "/echo").status == 503
            except (Closed, OSError):
                pass
        assert [client.read().status for client in busy] == [200] * 5
        # An idle connection makes room for a new one.
        assert gate.call("GET", "/echo").status == 200
    finally:
        for client in busy:
            client.close()
