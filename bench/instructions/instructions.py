#!/usr/bin/env python3
"""User-space instructions a metered request costs, and how often it asks for memory, counted by callgrind: free of the
machine's noise.

    instructions.py                       compares with figures.json; exit 1 when a request costs over 3 % more instructions
                                          than stated, or one allocation more in two requests
    instructions.py --update              states what it costs now, for a change that is worth its price or saves some
    instructions.py --functions 40        and the dearest functions of the worker, and those that allocate most
    instructions.py --tollgate BINARY     another binary

One request at a time over 16 keep-alive connections, 1000 users in turn, each with its token verified and its lease there
before counting begins; token, licence, exact quota in Redis, journal, access log and metrics are on. The figure is what the
worker spends in the events of its sockets and at the ends of its turns: what timers do by the clock is told apart, since it
depends on how fast the machine is. nginx as a plain reverse proxy is counted beside it.
"""
import argparse
import collections
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "bench", "compare"))
sys.dont_write_bytecode = True
import peers  # noqa: E402

FIGURES = os.path.join(HERE, "figures.json")
TOLERANCE, TOLERANCE_ALLOCATIONS = 0.03, 0.5
CONNECTIONS, WARM_UP, REQUESTS = 16, 2_000, 3_000
MONOTONIC = ("std::chrono::time_point<tollgate::MonotonicClock, std::chrono::duration<long, std::ratio<1l, "
             "1000000000l> > >")
# What tells that a socket is ready, and the end of a turn, where all that is ready is handled; neither calls the other.
EVENTS = ["tollgate::net::Watch::on_event(int, short, void*)", "tollgate::net::EventLoop::on_turn_end(int, short, void*)"]
# What of it is a timer's, by the clock.
TIMERS = ["tollgate::net::TimerQueue::expire(" + MONOTONIC + ")"]
ALLOCATORS = {"malloc", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign"}
REPLY_BYTES = 1024


class Costs:
    """One thread's file of callgrind: instructions by function, alone and with what it calls; who allocates how often."""

    def __init__(self, path):
        self.own, self.calls, self.allocations = collections.Counter(), collections.Counter(), collections.Counter()
        names, function, called, in_call = {}, None, None, False

        def name(text):
            number, _, full = text.partition(" ")
            if full:
                names[number] = full
            return names[number]

        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("fn="):
                    function = name(line[3:].rstrip("\n"))
                elif line.startswith("cfn="):
                    called = name(line[4:].rstrip("\n"))
                elif line.startswith("calls="):
                    in_call = True
                    # Whom operator new allocates for is what one wants to know.
                    if called in ALLOCATORS and not function.startswith("operator new") or called.startswith("operator new"):
                        self.allocations[function] += int(line[6:].split()[0])
                elif function is not None and line[0] in "0123456789+-*":
                    (self.calls if in_call else self.own)[function] += int(line.split()[1])
                    in_call = False
        self.total = sum(self.own.values())

    def inclusive(self, functions):
        return sum(self.own[function] + self.calls[function] for function in functions)


def reply(connection):
    """The status; the whole reply is read when it is a good one."""
    got = b""
    while b"\r\n\r\n" not in got or (got.startswith(b"HTTP/1.1 200 ") and len(got) - got.index(b"\r\n\r\n") - 4 < REPLY_BYTES):
        more = connection.recv(65536)
        if not more:
            raise RuntimeError(f"the proxy closed the connection: {got!r}")
        got += more
    return int(got[9:12])


def wait_until_ready(port, request):
    """A proxy that has just begun to listen has no connection to its store yet."""
    deadline = time.monotonic() + 30
    while True:
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(request)
            status = reply(connection)
        if status == 200:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the proxy answers {status}")
        time.sleep(0.1)


def count(setup, name, start):
    """Files of callgrind, one a thread, of REQUESTS requests to the proxy that start() starts under it."""
    out = setup.path(name + ".callgrind")
    peers.UNDER[name] = ["valgrind", "--tool=callgrind", "--fair-sched=yes", "--instr-atstart=no", "--separate-threads=yes",
                         f"--callgrind-out-file={out}"]
    port = peers.free_port()
    child = start(setup, name, port)
    try:
        with open(setup.tokens, encoding="ascii") as file:
            requests = [f"GET {peers.METERED_PATH} HTTP/1.1\r\nHost: portal.example\r\nAuthorization: Bearer {token}\r\n"
                        "Accept: application/json\r\nUser-Agent: compare/1.0\r\n\r\n".encode() for token in file.read().split()]
        wait_until_ready(port, requests[0])
        connections = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(CONNECTIONS)]

        def send(number):
            for i in range(number):
                connection = connections[i % CONNECTIONS]
                connection.sendall(requests[i % len(requests)])
                if (status := reply(connection)) != 200:
                    raise RuntimeError(f"the proxy answers {status}")

        def control(*arguments):
            subprocess.run(["callgrind_control", *arguments, str(child.process.pid)], check=True, timeout=60,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        send(WARM_UP)
        control("-i", "on")
        send(REQUESTS)
        control("-d")
        deadline = time.monotonic() + 20
        while not (files := glob.glob(out + ".1-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        costs = [Costs(file) for file in files]
        for connection in connections:
            connection.close()
    finally:
        child.stop()
        if getattr(child, "store", None):
            child.store.stop()
    return costs


def short(function):
    for long in ["_view", ""]:
        function = re.sub(rf"std::(__cxx11::)?basic_string{long}<char, std::char_traits<char>(, std::allocator<char> )?>",
                          f"std::string{long}", function)
    return function


def main(arguments):
    for program in ["valgrind", "callgrind_control"]:
        if not shutil.which(program):
            sys.exit(f"{program} is missing: install valgrind")
    if peers.missing("nginx"):
        sys.exit(f"missing: {' '.join(peers.missing('nginx'))}")
    with tempfile.TemporaryDirectory(prefix="tg_") as folder:
        setup = peers.Setup(folder, arguments.tollgate)
        try:
            ours = count(setup, "tollgate", peers.tollgate)
            theirs = count(setup, "nginx", peers.nginx_proxy)
        finally:
            setup.upstream.stop()
    worker = max(ours, key=lambda costs: costs.inclusive(EVENTS))
    by_event = worker.inclusive(EVENTS) - worker.inclusive(TIMERS)
    now = round(by_event / REQUESTS)
    nginx = round(max(costs.total for costs in theirs) / REQUESTS)
    rest = round((sum(costs.total for costs in ours) - by_event) / REQUESTS)
    with open(FIGURES, encoding="utf-8") as file:
        figures = json.load(file)
    stated = figures["metered_request"]
    print(f"a metered request: {now} instructions, stated {stated} ({now / stated - 1:+.1%}); nginx, plain: {nginx} ({now / nginx:.2f} x)")
    print(f"timers and other threads meanwhile: {rest} a request, by the clock")
    # Who allocates in fewer requests does so by the clock, or once in many: a lease is fetched, the store is told.
    allocations = sum(number for number in worker.allocations.values() if number > REQUESTS / 2) / REQUESTS
    print(f"allocations: {allocations:.2f} a request, stated {figures['allocations']:.1f}")
    for function, number in worker.allocations.most_common(arguments.functions):
        print(f"{number / REQUESTS:10.2f}  {short(function)}")
    for function, cost in worker.own.most_common(arguments.functions):
        print(f"{cost / REQUESTS:10.1f}  {short(function)}")
    if arguments.update:
        with open(FIGURES, "w", encoding="utf-8") as file:
            file.write(json.dumps({"metered_request": now, "allocations": round(allocations, 1), "nginx_plain": nginx}, indent=2)
                       + "\n")
        return 0
    if allocations > figures["allocations"] + TOLERANCE_ALLOCATIONS:
        print("more allocations than stated. If that is worth it: instructions.py --update, and commit figures.json")
        return 1
    if now > stated * (1 + TOLERANCE):
        print(f"dearer than stated by more than {TOLERANCE:.0%}. If that is worth it: instructions.py --update, and commit figures.json")
        return 1
    if now < stated * (1 - TOLERANCE):
        print("cheaper than stated: instructions.py --update holds it there")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tollgate", default=os.path.join(ROOT, "build/release/tollgate"))
    parser.add_argument("--functions", type=int, default=0)
    parser.add_argument("--update", action="store_true")
    sys.exit(main(parser.parse_args()))
