#!/usr/bin/env python3
"""Soak: one proxy for ten minutes under a mixed load and faults; memory, descriptors and threads must stay where they are.

    tests/endurance/soak.py [--seconds 600] [--tiny] [--seed N] [--csv FILE]        (./dev bench soak)

Load, one process each: metered calls on keep-alive connections, a connection and a fresh token a call, TLS with a
handshake every few calls, replies of 1 MiB, uploads, users whose quota is used up, and clients that vanish anywhere in an
exchange or do not read. Faults, through 85 % of the run: reloads (with a changed configuration), log rotation, the CRM
killed and started again, Redis stopped and continued.

Every second the proxy's memory (RssAnon and VmRSS), descriptors and threads are written down. At the end is printed, and
must hold:
  1. memory and descriptors are flat over the last two thirds of the time with faults. Bursts come and go, a leak raises
     what is left between them: the trend (Theil-Sen) is that of the minima of slices longer than the time between two
     faults of a kind, and may be 2 MiB or 3 %, for descriptors 16 or 10 %, whatever is more. Not judged in runs of less
     than two minutes
  2. when the load has ended, threads and sockets are as many as before it, other descriptors at most six more (segments
     of the journal, the book of usage), and no client connection is counted
  3. only statuses that the load and the faults can cause were seen, and every kind of load was served until the end
  4. SIGTERM ends the proxy with code 0
Exit 0 when all hold.
"""
import argparse
import collections
import multiprocessing
import os
import random
import re
import signal
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from harness import Authority, Proxy, Redis, Standin, eventually, free_port, token  # noqa: E402

USERS = 1000
FAULTY = 0.85  # of the run; the rest shows that all is well again
SLICE = 25.0  # seconds: longer than the time between two faults of a kind
METERED = "/0/odata/Case/$count"
# 429: the users with a small quota. 502, 503, 504: CRM or store are away. 0: the connection broke off.
EXPECTED = {0, 200, 429, 502, 503, 504}


class Broken(Exception):
    """The connection ended, or was not even made."""


def request(method, path, bearer, body=b"", length=None):
    size = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: portal.test\r\n" + (f"Authorization: Bearer {bearer}\r\n" if bearer else "")
    return (head + (f"Content-Length: {size}\r\n" if method == "POST" else "") + "\r\n").encode() + body


def exchange(sock, data):
    """(status, whether the connection stays open). Everything that answers here uses Content-Length."""
    try:
        sock.sendall(data)
        reply = b""
        while b"\r\n\r\n" not in reply:
            piece = sock.recv(65536)
            if not piece:
                raise Broken
            reply += piece
        head, _, body = reply.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
        missing = (int(found.group(1)) if found else 0) - len(body)
        while missing > 0:
            piece = sock.recv(262144)
            if not piece:
                raise Broken
            missing -= len(piece)
        return int(head[9:12]), b"connection: close" not in head.lower()
    except OSError as error:
        raise Broken from error


class Caller:
    """One process of the load: what it has in common, and its count of answers. Statuses of the last third are counted apart."""

    def __init__(self, ports, context, deadline, seed):
        self.port, self.tls_port = ports
        self.context, self.deadline = context, deadline
        self.rng = random.Random(seed)
        self.began = time.monotonic()
        self.statuses, self.late = {}, {}

    def going(self):
        return time.monotonic() < self.deadline

    def connect(self, tls=False):
        try:
            sock = socket.create_connection(("127.0.0.1", self.tls_port if tls else self.port), 10)
            sock.settimeout(10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self.context.wrap_socket(sock, server_hostname="localhost") if tls else sock
        except OSError as error:
            raise Broken from error

    def note(self, status):
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if time.monotonic() - self.began > (self.deadline - self.began) * 2 / 3:
            self.late[status] = self.late.get(status, 0) + 1

    def calls(self, make, connections=1, each=1 << 60, tls=False, pause=0.002):
        """Calls over that many connections in turn, each closed after `each` calls; make() gives the bytes of a request."""
        open_ones = [None] * connections
        used = [0] * connections
        number = 0
        while self.going():
            number = (number + 1) % connections
            try:
                if open_ones[number] is None:
                    open_ones[number], used[number] = self.connect(tls), 0
                status, keep = exchange(open_ones[number], make())
                used[number] += 1
            except Broken:
                status, keep = 0, False
            self.note(status)
            if not keep or used[number] >= each:
                if open_ones[number] is not None:
                    open_ones[number].close()
                    open_ones[number] = None
            time.sleep(pause if status in (200, 429) else 0.02)
        for sock in open_ones:
            if sock is not None:
                sock.close()


def keep_alive(caller):
    tokens = [token(f"user-{number:04}", lifetime=36000) for number in range(USERS)]
    caller.calls(lambda: request("GET", METERED, caller.rng.choice(tokens)), connections=16, pause=0.001)


def churn(caller):
    """A connection a call, and a token that was never seen before: the cache of tokens has to forget."""

    def fresh():
        return token(f"user-{caller.rng.randrange(USERS):04}", nonce=caller.rng.random())

    caller.calls(lambda: request("GET", METERED, fresh()), each=1)


def over_tls(caller):
    bearer = token("user-tls", lifetime=36000)
    caller.calls(lambda: request("GET", METERED, bearer), connections=4, each=8, tls=True)


def large(caller):
    caller.calls(lambda: request("GET", "/bytes/1048576", ""), connections=2, each=50, pause=0.02)


def uploads(caller):
    body = b"u" * 200_000
    caller.calls(lambda: request("POST", "/upload", "", body), connections=2, each=50, pause=0.02)


def refused(caller):
    bearer = token("few", lifetime=36000)
    caller.calls(lambda: request("GET", METERED, bearer), connections=2, each=100, pause=0.01)


def vanishing(caller):
    """Clients that are gone, politely or with a reset, at every stage of an exchange; and some that stay and do not read.
    Counted as 0."""
    stuck = collections.deque()
    bearer = token("user-0001", lifetime=36000)
    whole = request("GET", METERED, bearer)
    big = request("GET", "/bytes/20000000", "")
    part = request("POST", "/upload", "", b"x" * 1000, 100_000)
    while caller.going():
        kind = caller.rng.randrange(8)
        try:
            with socket.create_connection(("127.0.0.1", caller.tls_port if kind in (5, 6) else caller.port), 10) as sock:
                sock.settimeout(10)
                if kind == 0:  # within the head
                    sock.sendall(whole[:caller.rng.randrange(1, len(whole))])
                elif kind == 1:  # while the CRM works on it
                    sock.sendall(whole)
                elif kind == 2:  # within a reply
                    sock.sendall(big)
                    sock.recv(100_000)
                elif kind == 3:  # within a body
                    sock.sendall(part)
                elif kind == 4:  # half closed, never reads
                    sock.sendall(whole * 20)
                    sock.shutdown(socket.SHUT_WR)
                elif kind == 5:  # within the handshake
                    sock.sendall(bytes.fromhex("1603010200010001fc0303") + os.urandom(20))
                elif kind == 6:  # after it, within a reply
                    with caller.context.wrap_socket(sock, server_hostname="localhost") as secure:
                        secure.sendall(big)
                        secure.recv(10_000)
                elif len(stuck) < 20 or caller.rng.random() < 0.1:  # there, but not reading
                    sock.sendall(big)
                    stuck.append(sock.dup())
                    if len(stuck) > 20:
                        stuck.popleft().close()
                if kind != 6 and caller.rng.random() < 0.5:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        caller.note(0)
        time.sleep(0.01)
    while stuck:
        stuck.pop().close()


LOADS = [keep_alive, churn, over_tls, large, uploads, refused, vanishing]


def work(index, ports, authority_file, deadline, seed, results):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    caller = Caller(ports, ssl.create_default_context(cafile=authority_file), deadline, seed * 100 + index)
    LOADS[index](caller)
    results.put((LOADS[index].__name__, caller.statuses, caller.late))


class Faults:
    """What goes wrong meanwhile, by a plan of its own times; turn() is called a few times a second."""

    def __init__(self, proxy, crm, redis, seconds, seed):
        self.proxy, self.crm, self.redis = proxy, crm, redis
        self.rng = random.Random(seed)
        self.counts = {"reload": 0, "log rotation": 0, "CRM killed": 0, "Redis stopped": 0}
        quick = min(1.0, max(0.2, seconds / 60))
        self.every = {"reload": 4 * quick, "log rotation": 7 * quick, "CRM killed": 17 * quick, "Redis stopped": 13 * quick}
        now = time.monotonic()
        self.due = {what: now + every for what, every in self.every.items()}
        self.crm_back = self.redis_back = None
        self.last_fault = now + seconds * FAULTY

    def turn(self):
        now = time.monotonic()
        if self.crm_back and now >= self.crm_back:
            self.crm.start()
            self.crm_back = None
        if self.redis_back and now >= self.redis_back:
            self.redis.signal(signal.SIGCONT)
            self.redis_back = None
        for what, due in self.due.items():
            if now < due or now > self.last_fault:
                continue
            self.due[what] = now + self.every[what] * (0.7 + 0.6 * self.rng.random())
            self.counts[what] += 1
            if what == "reload":
                self.proxy.write_config(limits={"max_header_count": self.rng.randrange(64, 256)},
                                        timeouts={"client_idle": f"{self.rng.randrange(60, 90)}s"})
                self.proxy.reload()
            elif what == "log rotation":
                os.unlink(os.path.join(self.proxy.folder, "access.log"))
                self.proxy.signal(signal.SIGUSR1)
                log = os.path.join(self.proxy.folder, "access.log")
                eventually(lambda log=log: os.path.exists(log), 10, "the access log is opened again")
            elif what == "CRM killed" and not self.crm_back:
                self.crm.kill()
                self.crm_back = now + 0.2 + self.rng.random() * 1.5
            elif what == "Redis stopped" and not self.redis_back:
                self.redis.signal(signal.SIGSTOP)
                self.redis_back = now + 0.2 + self.rng.random() * 2

    def heal(self):
        if self.crm_back:
            self.crm.start()
        if self.redis_back:
            self.redis.signal(signal.SIGCONT)
        self.crm_back = self.redis_back = None


def descriptors(pid):
    """What the open descriptors lead to; one that is closed meanwhile is left out."""
    names = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            pass
    return names


def sample(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        status = file.read()

    def number(name):
        return int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE).group(1))

    names = descriptors(pid)
    return {"anonymous": number("RssAnon") * 1024, "resident": number("VmRSS") * 1024, "threads": number("Threads"),
            "descriptors": len(names), "sockets": sum(name.startswith("socket:") for name in names)}


def slope(points):
    """Theil-Sen: the median of the slopes between (time, value) points; a quarter of them may be anything. Per second."""
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1:] if b[0] > a[0]]
    return statistics.median(slopes) if slopes else 0.0


def flat(samples, what, least, share):
    """(text, whether it holds) for one figure over the last two thirds of the time with faults."""
    faulty = samples[:max(3, int(len(samples) * FAULTY))]
    late = faulty[len(faulty) // 3:]
    times = [entry["at"] for entry in late]
    values = [entry[what] for entry in late]
    middle = statistics.median(values)
    size = max(1, len(late) // max(4, min(16, int((times[-1] - times[0]) / SLICE))))
    floors = [min((entry[what], entry["at"]) for entry in late[at:at + size]) for at in range(0, len(late) - size + 1, size)]
    growth = slope([(at, value) for value, at in floors]) * (times[-1] - times[0])
    allowed = max(least, share * middle)
    unit, name = (1 << 20, " MiB") if least > 1000 else (1, "")
    text = (f"{what:12} median {middle / unit:8.1f}{name}, min-max {min(values) / unit:.1f}-{max(values) / unit:.1f}, "
            f"trend {growth / unit:+.2f}{name} in {times[-1] - times[0]:.0f} s (allowed {allowed / unit:+.2f})")
    return text, growth <= allowed


def run(options, folder):
    authority = Authority(os.path.join(folder, "authority"))
    certificate, key = authority.issue("proxy")
    crm, redis = Standin(folder).start(), Redis(folder).start()
    tls_port = free_port()
    proxy = Proxy(folder, crm.url, redis.url, changes={
        "quotas": [{"name": "window", "limit": 100000, "window": "60s", "per": ["user"], "on": "licensed",
                    "overrides": {"few": 5}}],
        "identity": {"token_cache_entries": 2048}, "store": {"flush_interval": "5s"}, "overload": {"lag": "2s"},
    })
    proxy.settings["listeners"].append({"address": f"127.0.0.1:{tls_port}",
                                        "tls": {"certificate_file": certificate, "key_file": key}})
    proxy.start()
    workers, samples, statuses, late = [], [], {}, {}
    try:
        resting = sample(proxy.pid)
        deadline = time.monotonic() + options.seconds
        results = multiprocessing.Queue()
        shared = ((proxy.port, tls_port), authority.ca_file, deadline, options.seed, results)
        workers = [multiprocessing.Process(target=work, args=(index, *shared), daemon=True) for index in range(len(LOADS))]
        for worker in workers:
            worker.start()
        began = time.monotonic()
        faults = Faults(proxy, crm, redis, options.seconds, options.seed)
        told = began
        while time.monotonic() < deadline:
            faults.turn()
            if not proxy.running():
                raise AssertionError(f"the proxy ended with code {proxy.child.returncode}\n{proxy.log()[-3000:]}")
            now = time.monotonic()
            if not samples or now - began - samples[-1]["at"] >= 1:
                samples.append({"at": now - began, **sample(proxy.pid)})
            if now - told >= 30:
                told = now
                entry = samples[-1]
                print(f"{entry['at']:5.0f} s: {entry['anonymous'] / 2**20:.1f} MiB of {entry['resident'] / 2**20:.1f}, "
                      f"{entry['descriptors']} descriptors, {entry['threads']} threads", file=sys.stderr, flush=True)
            time.sleep(0.1)
        faults.heal()
        for _ in workers:
            name, counts, last = results.get(timeout=60)
            statuses[name], late[name] = counts, last
        for worker in workers:
            worker.join(20)

        problems = judge(options, samples, statuses, late, faults)
        problems += judge_rest(proxy, crm, resting)
        code = proxy.stop(40)
        if code != 0:
            problems.append(f"SIGTERM ended the proxy with code {code}")
        return samples, problems
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
        for part in (proxy, crm, redis):
            if part.running():
                part.signal(signal.SIGCONT)
                part.kill()


def judge(options, samples, statuses, late, faults):
    """Prints what was seen; what does not hold."""
    problems = []
    print(f"\nfaults: {', '.join(f'{what} {count}' for what, count in faults.counts.items())}")
    codes = sorted({code for counts in statuses.values() for code in counts})
    print("answers".ljust(12) + "".join(f"{code or 'none':>9}" for code in codes))
    for load in LOADS:
        counts = statuses[load.__name__]
        print(load.__name__.ljust(12) + "".join(f"{counts.get(code, 0):9}" for code in codes))
        good = {200, 429} if load is refused else {0} if load is vanishing else {200}
        if not any(late[load.__name__].get(code) for code in good):
            problems.append(f"{load.__name__} was not served in the last third")
        for code in set(counts) - EXPECTED:
            problems.append(f"{load.__name__} was answered {code} {counts[code]} times")
    for what, count in faults.counts.items():
        if not count:
            problems.append(f"no {what} took place")
    for what, least, share in (("anonymous", 2 << 20, 0.03), ("resident", 8 << 20, 0.05), ("descriptors", 16, 0.1)):
        text, holds = flat(samples, what, least, share)
        judged = options.seconds >= 120
        print(f"{text}: {('flat' if holds else 'GROWS') if judged else 'too short to tell'}")
        if judged and not holds:
            problems.append(f"{what} grows")
    threads = {entry["threads"] for entry in samples[1:]}
    print(f"threads      {'-'.join(str(count) for count in sorted({min(threads), max(threads)}))}")
    return problems


def judge_rest(proxy, crm, resting):
    """Without load: everything that the load had opened is closed again."""
    crm.kill()  # and with it the idle connections to it
    end = {}

    def files(entry):
        return entry["descriptors"] - entry["sockets"]

    def closed():
        end.update(sample(proxy.pid))
        return (end["sockets"] <= resting["sockets"] and files(end) <= files(resting) + 6
                and proxy.metric("tollgate_connections", side="client") == 0)

    problems = []
    try:
        eventually(closed, 30, "descriptors are back where they were")
    except AssertionError:
        problems.append(f"after the load {end['sockets']} sockets and {files(end)} other descriptors, before it "
                        f"{resting['sockets']} and {files(resting)}; client connections counted: "
                        f"{proxy.metric('tollgate_connections', side='client'):.0f}; "
                        + " ".join(sorted(descriptors(proxy.pid))))
    print(f"at rest      {resting['descriptors']} descriptors, {resting['threads']} threads and "
          f"{resting['anonymous'] / 2**20:.1f} MiB before the load, {end['descriptors']}, {end['threads']} and "
          f"{end['anonymous'] / 2**20:.1f} MiB after it")
    if end["threads"] > resting["threads"]:
        problems.append(f"{end['threads']} threads after the load, {resting['threads']} before it")
    return problems


def main():
    parser = argparse.ArgumentParser(description="Mixed load and faults; memory and descriptors must stay flat.")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--tiny", action="store_true", help="12 seconds: shows that it works; flatness is not judged")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", help="write the samples to this file")
    options = parser.parse_args()
    options.seconds = 12 if options.tiny else max(10, min(86400, options.seconds))
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        samples, problems = run(options, folder)
    if options.csv:
        with open(options.csv, "w", encoding="ascii") as file:
            names = list(samples[0])
            file.write(",".join(names) + "\n")
            file.writelines(",".join(f"{entry[name]:.1f}" for name in names) + "\n" for entry in samples)
    for problem in problems:
        print(f"does not hold: {problem}")
    print("all holds" if not problems else f"{len(problems)} do not hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
