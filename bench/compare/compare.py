#!/usr/bin/env python3
"""Tollgate beside nginx, HAProxy and nginx+Lua+Redis on this machine: what things cost each of them, and how sure that is.

    compare.py [--tiny] [--seconds 2] [--rounds 7] [--connections 64] [--idle 5000] [--tollgate BINARY] [--json FILE]
               [GROUP | GROUP:CASE | CASE | all]...

Groups: proxying (the default, two minutes), rejecting, tls, handshake, large, idle; `all` takes a quarter of an hour.
A bare CASE is one of proxying.

Method: the proxy alone on the first CPU; load generator, an nginx upstream and Redis on the second; loopback. All cases
of a group are started, then measured in turn, round by round, each round beginning with another case. CPU is user +
system time of the whole process tree and of its Redis, so that waiting costs nothing; machines drift by a quarter within
seconds, so that ratios are taken within a round and "x up" divides by the CPU that the upstream used in the same run. A
ratio is the median over the rounds with the interval that holds it with 95 % (report.py); when that interval holds 1,
there is no difference to speak of.

Everything is bounded: each run has a fixed time, every process is ended by its id. Exit code 1 when a case failed.
"""
import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import peers
import report

ROOT = os.path.dirname(os.path.dirname(peers.HERE))


class Failed(Exception):
    """A case that did not do what it has to do: nothing that it cost means anything."""


def on_other_cpu(command, seconds, **more):
    return subprocess.run(["taskset", "-c", str(peers.OTHER_CPU), *command], timeout=seconds + 30, check=False, **more)


def calls(setup, options, child, seconds, tls):
    """wrk for so many seconds: {requests, duration_us, p50_us, p99_us, refused, failed}."""
    out = setup.path("wrk.json")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(out)
    environment = {**os.environ, "COMPARE_TOKENS": setup.tokens, "COMPARE_PATH": peers.METERED_PATH, "COMPARE_OUT": out}
    done = on_other_cpu(["wrk", "-t1", f"-c{options.connections}", f"-d{seconds}s", "--timeout", "5s", "-s",
                         os.path.join(peers.HERE, "wrk.lua"), f"{'https' if tls else 'http'}://127.0.0.1:{child.port}"],
                        seconds, capture_output=True, text=True, env=environment)
    if done.returncode != 0 or not os.path.exists(out):
        raise Failed(f"wrk: {done.stdout[-500:]}{done.stderr[-500:]}")
    with open(out, encoding="ascii") as file:
        return json.load(file)


def handshakes(child, seconds):
    """Connections for so many seconds, one after the other, none resumed: same figures as calls(). The client ends its side
    and reads on to the end: one that is gone at once spares a server the second half, tickets and all, by chance."""
    context, count = tls_context(), 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", child.port), 10), server_hostname="portal.example") as sock:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        count += 1
    return {"requests": count, "duration_us": (time.monotonic() - started) * 1e6, "p50_us": 0, "p99_us": 0, "refused": 0,
            "failed": 0}


def other_use():
    """Time that the proxies' CPU has spent on anything so far, in us."""
    with open("/proc/stat", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"cpu{peers.PROXY_CPU} "))
    user, nice, system, _idle, _wait, hard, soft = (int(word) for word in line.split()[1:8])
    return (user + nice + system + hard + soft) * 1e6 / peers.TICKS


def tls_context():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def request(token):
    return (f"GET {peers.METERED_PATH} HTTP/1.1\r\nHost: portal.example\r\nAuthorization: Bearer {token}\r\n"
            "Accept: application/json\r\n\r\n").encode()


def read_reply(sock):
    """(status, length of the body) of the next reply; those here have a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise Failed(f"connection closed within a head: {data[:300]!r}")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
    if not found:
        raise Failed(f"no Content-Length: {head[:300]!r}")
    length, have = int(found.group(1)), len(body)
    while have < length:
        piece = sock.recv(65536)
        if not piece:
            raise Failed(f"connection closed after {have} of {length} bytes")
        have += len(piece)
    return int(head.split(b" ", 2)[1]), have


def check(group, child, tls, tokens):
    """A call must be answered as the group asks before anything is measured. Rejecting: once every user has used up the quota."""
    with socket.create_connection(("127.0.0.1", child.port), 10) as plain:
        sock = tls_context().wrap_socket(plain, server_hostname="portal.example") if tls else plain
        for token in (tokens if group == "rejecting" else []) + tokens[:1]:
            sock.sendall(request(token))
            status, length = read_reply(sock)
        wanted = (429, 0) if group == "rejecting" else (200, 102400 if group == "large" else 1024)
        if status != wanted[0] or length < wanted[1]:
            raise Failed(f"answered {status} with {length} bytes instead of {wanted[0]} with {wanted[1]}")


def measure(setup, options, group, child, tls):
    """One run of one case."""
    store = getattr(child, "store", None)
    parts = [child, setup.upstream] + ([store] if store else [])
    seconds = options.seconds
    began, busy = time.monotonic(), other_use()
    before = [part.cpu_us() for part in parts]
    result = handshakes(child, seconds) if group == "handshake" else calls(setup, options, child, seconds, tls)
    own, up, inside = ([part.cpu_us() - value for part, value in zip(parts, before)] + [0.0])[:3]
    others = max(0.0, other_use() - busy - own) / ((time.monotonic() - began) * 1e6)
    count = result["requests"]
    good = result["refused"] if group == "rejecting" else count - result["refused"]
    if result["failed"] or count == 0 or good < count * (0.98 if group == "rejecting" else 1):
        raise Failed(f"{count} requests, {result['refused']} answered 4xx or 5xx, {result['failed']} failed")
    served = up > 0 and group not in ("rejecting", "handshake")
    return {"cost": (own + inside) / count, "store_us": inside / count, "x_up": (own + inside) / up if served else 0.0,
            "per_second": count * 1e6 / result["duration_us"], "p50_us": result["p50_us"], "p99_us": result["p99_us"],
            "others": others}


def measure_idle(options, child, tls, tokens):
    """Memory that idle connections add: after every user has called once, so that what is kept for users does not count."""
    context = tls_context() if tls else None

    def connected(number):
        sock = socket.create_connection(("127.0.0.1", child.port), 20)
        if context:
            sock = context.wrap_socket(sock, server_hostname="portal.example")
        sock.sendall(request(tokens[number % len(tokens)]))
        if read_reply(sock)[0] != 200:
            raise Failed(f"idle connection {number} was not answered with 200")
        return sock

    with contextlib.ExitStack() as warm:
        for number in range(16):
            sock = warm.enter_context(connected(number))
            for token in tokens[number::16]:
                sock.sendall(request(token))
                read_reply(sock)
    time.sleep(0.3)
    before = child.anonymous_bytes()
    with contextlib.ExitStack() as stack:
        for number in range(options.idle):
            stack.enter_context(connected(number))
        time.sleep(0.5)
        after = child.anonymous_bytes()
    return {"cost": max(1.0, (after - before) / options.idle), "store_us": 0.0, "x_up": 0.0, "per_second": 0.0, "p50_us": 0,
            "p99_us": 0, "others": 0.0}


def start(setup, group, name):
    return peers.CASES[group][name][0](setup, f"{group}-{name}", peers.free_port())


def stop(child):
    child.stop()
    if getattr(child, "store", None):
        child.store.stop()


def uses_tls(group, name):
    return group in ("tls", "handshake") or name.endswith("-tls")


def run_idle(setup, options, group, names, tokens, note):
    """Each case in a process of its own each time: memory that was freed is used again and would not be seen."""
    rows = []
    for number in range(1 if options.tiny else max(1, options.rounds // 3)):
        for name in names:
            child = start(setup, group, name)
            try:
                check(group, child, uses_tls(group, name), tokens)
                row = measure_idle(options, child, uses_tls(group, name), tokens)
            finally:
                stop(child)
            rows.append({"group": group, "case": name, "round": number, **row})
            note(group, number, name, f"{row['cost']:.0f} bytes")
    return rows


def run_group(setup, options, group, names, tokens, note):
    rows = []
    with contextlib.ExitStack() as stack:
        children = {}
        for name in names:
            children[name] = start(setup, group, name)
            stack.callback(stop, children[name])
        for name, child in children.items():
            check(group, child, uses_tls(group, name), tokens)
            if options.tiny:
                continue
            if group == "handshake":
                handshakes(child, 1)
            else:
                calls(setup, options, child, 1, uses_tls(group, name))
        for number in range(options.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if group == "rejecting":  # a limit by rate lets everybody through again in time
                    check(group, children[name], False, tokens)
                row = measure(setup, options, group, children[name], uses_tls(group, name))
                rows.append({"group": group, "case": name, "round": number, **row})
                note(group, number, name, f"{row['cost']:.1f} us, {row['per_second']:.0f}/s")
    return rows


def chosen(words):
    """{group: [case]} in the order of peers.CASES; SystemExit names a word that is none."""
    out = {}
    for word in words or ["proxying"]:
        group, _, name = word.rpartition(":") if ":" in word else ("", "", word)
        if word == "all":
            found = {group: list(cases) for group, cases in peers.CASES.items()}
        elif not group and name in peers.CASES:
            found = {name: list(peers.CASES[name])}
        elif name in peers.CASES.get(group or "proxying", {}):
            found = {group or "proxying": [name]}
        else:
            sys.exit(f"unknown case {word}; there are: " + " ".join(
                f"{group}:{name}" for group, cases in peers.CASES.items() for name in cases) + " and the groups, or all")
        for group, names in found.items():
            out.setdefault(group, set()).update(names)
    return {group: [name for name in cases if name in out[group]] for group, cases in peers.CASES.items() if group in out}


def without_missing(plan):
    """The plan without the cases whose program is not here; says what to install."""
    out = {}
    for group, names in plan.items():
        for name in names:
            lacking = peers.missing(peers.CASES[group][name][1])
            if lacking:
                print(f"left out: {group}:{name} (apt-get install {' '.join(lacking)})")
            else:
                out.setdefault(group, []).append(name)
    return out


def main(options):
    for program, package in (("wrk", "wrk"), ("redis-server", "redis-server"), ("taskset", "util-linux"), ("openssl", "openssl")):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {package}, or ./dev setup")
    if not peers.NGINX:
        sys.exit("nginx is missing, which is the upstream of all cases: apt-get install nginx-light, or ./dev setup")
    plan = without_missing(chosen(options.cases))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options.idle = max(100, min(options.idle, (hard if hard > 0 else 1 << 20) // 3))
    machine = report.machine(options.tollgate)
    for what, text in machine:
        print(f"{what + ':':10}{text}")
    print(f"{'run:':10}{options.rounds} round(s) of {options.seconds} s a case, {options.connections} connections, "
          f"{peers.USERS} users; proxy on CPU {peers.PROXY_CPU}, the rest on CPU {peers.OTHER_CPU}", flush=True)

    def note(group, number, name, text):
        print(f"round {number + 1} {group}:{name}: {text}", file=sys.stderr, flush=True)

    rows, failures = [], []
    own = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="compare_") as folder, contextlib.ExitStack() as stack:
        setup = peers.Setup(folder, options.tollgate)
        stack.callback(setup.upstream.stop)
        os.sched_setaffinity(0, {peers.OTHER_CPU})
        stack.callback(os.sched_setaffinity, 0, own)
        with open(setup.tokens, encoding="ascii") as file:
            tokens = file.read().split()
        for group, names in plan.items():
            try:
                rows += (run_idle if group == "idle" else run_group)(setup, options, group, names, tokens, note)
            except (Failed, RuntimeError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"{group}: {error}")
                continue
            report.print_group(group, [row for row in rows if row["group"] == group])
    others = max((row["others"] for row in rows), default=0.0)
    if others > 0.05:
        print(f"\nother programs used up to {others:.0%} of the proxies' CPU meanwhile, and their caches: ratios are less sure")
    if len(peers.CPUS) < 2:
        print("one CPU only: proxy and load share it, ratios are not to be trusted")
    if options.json:
        ratios = [entry for group in plan for entry in report.ratios(group, [row for row in rows if row["group"] == group])]
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": dict(machine), "rows": rows, "ratios": ratios}, file, indent=1)
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures or not rows else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tollgate beside nginx, HAProxy and nginx+Lua+Redis.")
    parser.add_argument("cases", nargs="*", metavar="GROUP | GROUP:CASE | CASE | all", help="groups: " + " ".join(peers.CASES))
    parser.add_argument("--tiny", action="store_true", help="every group, one second a case, one round: shows that it works")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--idle", type=int, default=5000, help="connections of the group idle")
    parser.add_argument("--tollgate", default=os.path.join(ROOT, "build/release/tollgate"))
    parser.add_argument("--json", help="write every run and every ratio to this file")
    arguments = parser.parse_args()
    arguments.tollgate = os.path.abspath(arguments.tollgate)
    arguments.seconds = max(1, min(60, arguments.seconds))
    arguments.rounds = max(1, min(40, arguments.rounds))
    arguments.connections = max(1, min(1000, arguments.connections))
    if arguments.tiny:
        arguments.seconds, arguments.rounds, arguments.idle = 1, 1, 200
        arguments.cases = arguments.cases or ["all"]
    sys.exit(main(arguments))
