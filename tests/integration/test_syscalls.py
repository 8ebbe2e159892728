"""What a metered request costs in system calls when everything is warm. strace counts them; one more a request fails the test.

    client side     recv the request, send the reply
    upstream side   send the request, recv the reply
    the loop        one epoll_wait for each side that has to be waited for

Journal, access log and quota cost none: memory that is mapped, lines written in batches, leases."""
import re
import signal
import subprocess
import time

import pytest

from harness import SANITIZED, bearer
from requests_crm import CASES

REQUESTS = 2_000
SLACK = 0.1
# Timers, batches of the log, the journal's flushes, the store's pings: by time, not by request. At most, in a second.
BY_TIME = 30


def counts(pid, work, output):
    """System calls by name that the process made while work() ran."""
    tracer = subprocess.Popen(["strace", "-f", "-c", "-U", "name,calls", "-o", output, "-p", str(pid)], stderr=subprocess.PIPE,
                              text=True)
    while "attached" not in (line := tracer.stderr.readline()):
        assert line, "strace could not attach"
    try:
        work()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)
    with open(output, encoding="ascii") as file:
        return {match[1]: int(match[2]) for match in re.finditer(r"^\s*(\w+)\s+(\d+)\s*$", file.read(), re.MULTILINE)
                if match[1] != "total"}


@pytest.mark.skipif(SANITIZED, reason="sanitizers make system calls of their own")
def test_a_metered_request_costs_four_system_calls_and_its_share_of_the_loop(proxy, user, tmp_path):
    gate = proxy(workers=1, quotas=[{"name": "daily", "limit": 1_000_000, "window": "24h", "per": ["user"], "on": "licensed"}])
    headers = bearer(user)
    with gate.client() as client:
        def work(number=REQUESTS):
            for _ in range(number):
                assert client.request("GET", CASES + "/$count", headers).status == 200

        work(200)
        started = time.monotonic()
        seen = counts(gate.pid, work, str(tmp_path / "strace"))
        seconds = time.monotonic() - started
    each = {name: count / REQUESTS for name, count in seen.items()}

    def of(*names):
        return sum(each.get(name, 0) for name in names)

    assert of("recvfrom", "recvmsg", "read", "readv") <= 2 + SLACK, each
    assert of("sendto", "sendmsg", "write", "writev") <= 2 + SLACK, each
    assert of("epoll_wait", "epoll_pwait", "epoll_pwait2") <= 2 + SLACK, each
    rest = of(*each) - of("recvfrom", "recvmsg", "read", "readv", "sendto", "sendmsg", "write", "writev",
                          "epoll_wait", "epoll_pwait", "epoll_pwait2")
    assert rest <= SLACK + BY_TIME * seconds / REQUESTS, each
