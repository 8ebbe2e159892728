"""Where the time goes, and following a request: over two workers, bounded in time, without a secret in the log."""
import json
import re
import time

from harness import bearer, eventually, free_port
from requests_crm import CASES


def trace_lines(gate):
    return [line for line in gate.log().splitlines() if " debug trace " in line]


def follow(gate, body):
    reply = gate.admin("/api/v1/trace", "PUT", True, json.dumps(body).encode())
    assert reply.status == 200, reply
    return reply.json()


def test_own_time_is_told_by_phase_and_waiting_apart(proxy, crm, user):
    gate = proxy()
    crm.settings(latency_ms=20)
    headers = bearer(user)
    deadline = time.monotonic() + 60
    while gate.metric("tollgate_phase_seconds_count", phase="forward") < 3:
        assert time.monotonic() < deadline
        with gate.client() as client:
            for _ in range(50):
                assert client.request("GET", CASES + "/$count", headers).status in (200, 429)
        headers = bearer(user + str(deadline - time.monotonic()))
    metrics = gate.metrics()
    served = metrics['tollgate_phase_seconds_count{phase="forward"}']
    for phase in ("read", "authenticate", "classify", "decide", "charge", "relay", "record"):
        count, total = (metrics[f'tollgate_phase_seconds_{what}{{phase="{phase}"}}'] for what in ("count", "sum"))
        assert count >= served and 0 < total / count < 0.02, (phase, count, total)
    waits = metrics['tollgate_wait_seconds_count{for="upstream"}']
    assert metrics['tollgate_wait_seconds_sum{for="upstream"}'] / waits >= 0.02
    assert metrics["tollgate_requests_total" + '{code="200"}'] > 20 * served, "it is a sample"


def test_the_delay_of_the_loops_is_told(gate):
    before = gate.metric("tollgate_loop_delay_seconds_count")
    eventually(lambda: gate.metric("tollgate_loop_delay_seconds_count") >= before + 10, 10, "ten more timers ran")


def test_a_user_is_followed_on_both_workers_until_the_time_is_over(proxy, crm, user):
    gate = proxy()
    headers = {**bearer(user, org="acme"), "Cookie": "BPMLOADER=hush-cookie"}
    gate.call("GET", CASES + "/$count", headers)
    assert not trace_lines(gate)
    told = follow(gate, {"user": user, "for": "3s", "lines": 50_000})
    began = time.monotonic()
    assert told["following"] and told["user"] == user and told["lines_left"] == 50_000
    for number in range(32):  # each on a connection of its own: the kernel spreads them over the workers
        assert gate.call("GET", CASES + f"/$count?hush={number}", {**headers, "X-Request-Id": f"mine-{number:04}"}).status == 200
        assert gate.call("GET", CASES + "/$count", {**bearer(user + "-other"), "X-Request-Id": f"other-{number:04}"}).status == 200
    assert time.monotonic() - began < 3, "the machine is too slow for this test"
    ids = {line.split()[3] for line in eventually(
        lambda: sum(" ended ok" in line for line in trace_lines(gate)) >= 32 and trace_lines(gate), 5, "all ends are told")}
    assert ids == {f"mine-{number:04}" for number in range(32)}
    story = "\n".join(line for line in trace_lines(gate) if " mine-0007 " in line)
    steps = ["received GET", "authenticated as user", "classified as objects", "allowed; charges: 1 to", "charge admitted",
             'asks upstream "crm"', "server 127.0.0.1:", "reply head 200", "ended ok: status 200"]
    places = [story.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), story
    times = [int(found) for found in re.findall(r" \+(\d+)us ", story)]
    assert times == sorted(times) and 0 < times[-1] < 3_000_000
    log = gate.log()
    assert "hush" not in log and headers["Authorization"].split()[1][-20:] not in log
    eventually(lambda: not gate.admin("/api/v1/trace", with_token=True).json()["following"], 5, "the time is over")
    before = len(trace_lines(gate))
    for _ in range(16):
        gate.call("GET", CASES + "/$count", headers)
    assert len(trace_lines(gate)) == before


def test_a_request_is_followed_by_its_id_also_when_it_is_refused(proxy, crm, user):
    gate = proxy()
    follow(gate, {"request_id": "find-me-1"})
    gate.call("GET", CASES, {"X-Request-Id": "find-me-1"})
    gate.call("GET", CASES, {"X-Request-Id": "find-me-2"})
    story = "\n".join(eventually(lambda: any("ended" in line for line in trace_lines(gate)) and trace_lines(gate), 5, "lines"))
    assert "answers 401 itself" in story and "ended token_missing" in story and "find-me-2" not in story
    assert gate.admin("/api/v1/trace", "DELETE", True).json() == {"following": False}
    gate.call("GET", CASES, {"X-Request-Id": "find-me-1"})
    assert "\n".join(trace_lines(gate)) == story


def test_the_commands_follow_and_show_upstreams(proxy, crm, user):
    gate = proxy()
    assert "nothing is followed" in gate.command_run("trace", "-c", gate.config_path).stdout
    said = gate.command_run("trace", "--user", user, "--for", "10m", "-c", gate.config_path)
    assert said.returncode == 0 and f"following user {user} until" in said.stdout, said
    gate.call("GET", CASES + "/$count", bearer(user))
    eventually(lambda: any("ended ok" in line for line in trace_lines(gate)), 5, "its end is told")
    assert "nothing is followed" in gate.command_run("trace", "--stop", "-c", gate.config_path).stdout
    too_long = gate.command_run("trace", "--user", user, "--for", "2h", "-c", gate.config_path)
    assert too_long.returncode == 1 and "1h" in too_long.stderr
    report = gate.command_run("doctor", "-c", gate.config_path)
    assert re.search(rf"ok +upstreams +crm http://127\.0\.0\.1:{crm.port}.*: 0 calls at it, [1-9] idle connection", report.stdout), report.stdout


def test_the_pool_of_a_server_that_is_away_is_told(proxy, crm, user):
    gone = free_port()
    gate = proxy(upstream=[f"http://127.0.0.1:{gone}", crm.url])
    for _ in range(8):
        assert gate.call("GET", "/echo").status == 200
    assert gate.metric("tollgate_upstream_unhealthy", server=f"http://127.0.0.1:{gone}", because="unreachable") == 1
    assert gate.metric("tollgate_upstream_unhealthy", server=crm.url) == 0
    assert gate.metric("tollgate_upstream_connections_idle", server=crm.url) >= 1
    assert gate.metric("tollgate_upstream_queue_requests", upstream="crm") == 0
    report = gate.command_run("doctor", "-c", gate.config_path)
    assert re.search(rf"warning +upstreams +crm http://127\.0\.0\.1:{gone}.*cannot be reached", report.stdout), report.stdout
