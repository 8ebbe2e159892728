"""Whoever reads the logs stops reading: a pipe is full, and calls, reloads and the end do not wait for it."""
import fcntl
import os
import re
import select
import signal

import pytest

from harness import PATIENCE, Proxy, bearer, eventually
from requests_crm import CASES

# The drain, the time that a log is given at the end, and what a machine that is busy with tests takes.
END = 20 * PATIENCE


class Pipe:
    """Stands where a log shipper reads; with the smallest buffer that Linux has."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reader, False)
        self.text = ""

    def read(self):
        """All that has come until now."""
        while select.select([self.reader], [], [], 0)[0] and (part := os.read(self.reader, 65536)):
            self.text += part.decode()
        return self.text

    def close(self):
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def stalled(start, tmp_path, crm, redis):
    """stalled(stdout=fd, stderr=fd, **changes): a proxy that has these instead of the file of its log."""

    def make(stdout=None, stderr=None, **changes):
        gate = Proxy(str(tmp_path), crm.url, redis.url, changes={"timeouts": {"drain": "2s"}, **changes})
        gate.stdout, gate.stderr = stdout, stderr
        return start(gate)

    return make


def follow_until_lines_are_lost(gate, user):
    """Every step of his requests is a line of the log, written by the event loops."""
    assert gate.admin("/api/v1/trace", "PUT", with_token=True, body=b'{"user":"%s","for":"1h","lines":100000}' % user.encode()).status == 200
    with gate.client() as client:
        eventually(lambda: client.request("GET", CASES + "/$count", bearer(user)).status and lost_lines(gate) > 0, 20 * PATIENCE,
                   "lines are lost")


def lost_lines(gate):
    return gate.metric("tollgate_log_lost_lines_total")


def begin_to_reopen(gate):
    """Of signals that wait together HUP would come first."""
    gate.signal(signal.SIGUSR1)

    def taken():
        with open(f"/proc/{gate.pid}/status", encoding="ascii") as file:
            pending = int(re.search(r"ShdPnd:\s+(\w+)", file.read())[1], 16)
        return not pending & 1 << signal.SIGUSR1 - 1

    eventually(taken, 10, "the signal is taken")


def reload_takes_effect(gate):
    gate.write_config(routes=[{"path_prefix": "/nothing", "upstream": "crm"}])
    gate.reload()
    eventually(lambda: gate.call("GET", "/echo").status == 404, 20 * PATIENCE, "the new routes hold")


def fill_access_log(gate):
    with gate.client() as client:
        for number in range(500):
            assert client.request("GET", f"/echo?{number}").status == 200


def test_a_log_that_nobody_reads_stops_neither_calls_nor_reload_nor_the_end(stalled, pipe, user):
    gate = stalled(stderr=pipe.writer)
    follow_until_lines_are_lost(gate, user)
    for _ in range(8):  # connections to every worker
        assert gate.call("GET", "/echo").status == 200
    reload_takes_effect(gate)
    gate.signal(signal.SIGTERM)
    assert gate.child.wait(END) == 0


def test_a_log_that_is_read_again_says_how_many_lines_are_lost(stalled, pipe, user):
    gate = stalled(stderr=pipe.writer)
    follow_until_lines_are_lost(gate, user)
    pipe.read()
    reload_takes_effect(gate)
    eventually(lambda: "configuration reloaded" in pipe.read(), 20 * PATIENCE, "the line of the reload")
    told = re.findall(r"Z warning (\d+) lines? of this log (?:is|are) lost: nobody read (?:it|them)\n", pipe.text)
    assert sum(map(int, told)) == lost_lines(gate) > 0, pipe.text
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning) ", line) for line in pipe.text.splitlines()), pipe.text


def test_a_reader_of_the_log_that_is_gone_stops_nothing(stalled):
    reader, writer = os.pipe()
    os.close(reader)
    gate = stalled(stderr=writer)
    os.close(writer)
    assert gate.call("GET", "/echo").status == 200
    assert lost_lines(gate) > 0
    gate.signal(signal.SIGTERM)
    assert gate.child.wait(END) == 0


def test_an_access_log_that_nobody_reads_does_not_hold_up_the_end(stalled, pipe):
    gate = stalled(stdout=pipe.writer, access_log={"file": "-"})
    fill_access_log(gate)
    gate.signal(signal.SIGTERM)
    assert gate.child.wait(END) == 0
    written = pipe.read()
    assert written.endswith("\n")
    given_up = int(re.search(r"access log: the last (\d+) lines are given up, nobody read them", gate.log())[1])
    assert given_up + written.count('"path":"/echo"') == 500, gate.log()


def test_an_access_log_that_nobody_reads_does_not_hold_up_a_reload_behind_a_reopening(stalled, pipe):
    gate = stalled(stdout=pipe.writer, access_log={"file": "-"})
    fill_access_log(gate)
    begin_to_reopen(gate)
    reload_takes_effect(gate)
    assert "access log reopened" in gate.log()
    gate.signal(signal.SIGTERM)
    assert gate.child.wait(END) == 0


def test_an_access_log_that_is_read_again_has_every_line(stalled, pipe):
    gate = stalled(stdout=pipe.writer, access_log={"file": "-"})
    fill_access_log(gate)
    eventually(lambda: pipe.read().count('"path":"/echo"') == 500, 20 * PATIENCE, "every line")
    assert gate.stop() == 0
    assert "given up" not in gate.log()


def test_one_pipe_for_both_logs_that_nobody_reads_stops_nothing(stalled, pipe, user):
    gate = stalled(stdout=pipe.writer, stderr=pipe.writer, access_log={"file": "-"})
    follow_until_lines_are_lost(gate, user)
    for _ in range(8):
        assert gate.call("GET", "/echo").status == 200
    begin_to_reopen(gate)
    reload_takes_effect(gate)
    gate.signal(signal.SIGTERM)
    assert gate.child.wait(END) == 0
