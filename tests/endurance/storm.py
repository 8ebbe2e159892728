"""Endurance: several proxies on one store, under load, while processes are killed.

    tests/endurance/storm.py --calls 1000000 --proxies 3          three proxies; proxies and the primary killed at random
    tests/endurance/storm.py --kills 50 --proxies 1 --no-failover  one proxy, kill -9 under full load, fifty times

What must hold at the end, and is printed:
  1. no window of any user holds more calls that surely lie in it than the limit (from the clients' own clocks)
  2. billed (exports of all journals) = what the upstream itself counted, to the call
  3. the three-way reconciliation of journal, store and export finds no difference (`tollgate export --verify`)
Exit 0 when all hold. The store is a primary and a replica that lags, so that a failover loses acknowledged writes.
"""
import argparse
import array
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from harness import TOLLGATE, Proxy, Redis, Standin, eventually, sums_of_files, token  # noqa: E402
from relay import Relay  # noqa: E402

PATH = "/0/odata/Case/$count"


def client(index, ports, users, tokens, deadline, budget, results, seed):
    """Calls with random users over random proxies until the deadline or the budget ends."""
    rng = random.Random(seed)
    admitted = {user: array.array("d") for user in users}
    statuses = {}
    sockets = {}
    calls = 0
    while time.monotonic() < deadline and calls < budget:
        port = rng.choice(ports)
        user = rng.choice(users)
        started = time.monotonic()
        try:
            sock = sockets.get(port)
            if sock is None:
                sock = sockets[port] = socket.create_connection(("127.0.0.1", port), 5)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(tokens[user])
            reply = sock.recv(65536)
            while b"\r\n\r\n" not in reply:
                more = sock.recv(65536)
                if not more:
                    raise OSError("closed")
                reply += more
            head, _, body = reply.partition(b"\r\n\r\n")
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15:lower.find(b"\r", at) if lower.find(b"\r", at) > 0 else None]) if at >= 0 else 0
            while len(body) < length:
                more = sock.recv(65536)
                if not more:
                    raise OSError("closed")
                body += more
            status = int(head[9:12])
            if b"connection: close" in lower:
                sock.close()
                sockets.pop(port)
        except (OSError, ValueError):
            status = 0
            if sockets.get(port) is not None:
                sockets.pop(port).close()
            else:
                sockets.pop(port, None)
            time.sleep(0.002)
        ended = time.monotonic()
        calls += 1
        statuses[status] = statuses.get(status, 0) + 1
        if status == 200:
            admitted[user].append(started)
            admitted[user].append(ended)
    results.put((index, calls, statuses, {user: bytes(times) for user, times in admitted.items() if times}))


def worst_window(times, window):
    """Most admissions that surely lie within one window: first start to last end below its length."""
    pairs = sorted(zip(times[0::2], times[1::2]))
    worst = 0
    for i, (start, _) in enumerate(pairs):
        inside = 0
        for begin, end in pairs[i:]:
            if begin >= start + window:
                break
            inside += end < start + window
        worst = max(worst, inside)
    return worst


class Storm:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.rng = random.Random(options.seed)
        self.crm = Standin(folder).start()
        self.primary = Redis(folder, "redis-a", ["--repl-diskless-sync-delay", "0", "--appendonly", "yes"]).start()
        self.link = Relay(self.primary.port).start()
        self.link.delay = options.lag
        self.replica = None
        if not options.no_failover:
            self.replica = Redis(folder, "redis-b", ["--repl-diskless-sync-delay", "0",
                                                     "--replicaof", "127.0.0.1", str(self.link.port)]).start()
        self.way = Relay(self.primary.port).start()
        self.servers = 2
        self.events = []
        quotas = [{"name": "window", "limit": options.limit, "window": f"{options.window}s", "per": ["user"], "on": "licensed"}]
        self.proxies = [Proxy(folder, self.crm.url, self.way.url, f"proxy-{i}", {
            "workers": 1, "quotas": quotas, "access_log": {"file": ""},
            "store": {"session": "6s", "ping_interval": "2s", "flush_interval": "2s", "fence_wait": "30s", "timeout": "100ms"},
        }).start() for i in range(options.proxies)]

    def kill_proxy(self):
        proxy = self.rng.choice(self.proxies)
        proxy.kill()
        time.sleep(self.rng.random() * self.options.downtime)
        proxy.launch()
        self.events.append("proxy")

    def fail_over(self):
        if self.replica is None or "master_link_status:up" not in self.replica.command_line("INFO", "replication"):
            return
        self.primary.kill()
        assert self.replica.command_line("REPLICAOF", "NO", "ONE") == "OK"
        old, self.primary = self.primary, self.replica
        self.way.target = self.primary.port
        self.way.drop()
        self.link.stop()
        self.link = Relay(self.primary.port).start()
        self.link.delay = self.options.lag
        self.servers += 1
        self.replica = Redis(self.folder, f"redis-{self.servers}", ["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1",
                                                                   str(self.link.port)]).start()
        self.events.append("failover")

    def run(self):
        options = self.options
        users = [f"user-{i}" for i in range(options.users)]
        requests = {user: (f"GET {PATH} HTTP/1.1\r\nHost: crm\r\nAccept: application/json\r\n"
                           f"Authorization: Bearer {token(user, lifetime=86400)}\r\n\r\n").encode() for user in users}
        deadline = time.monotonic() + options.seconds
        results = multiprocessing.Queue()
        ports = [proxy.port for proxy in self.proxies]
        clients = [multiprocessing.Process(target=client, args=(i, ports, users, requests, deadline, options.calls // options.clients + 1,
                                                                results, options.seed * 1000 + i)) for i in range(options.clients)]
        for process in clients:
            process.start()
        started = shown = time.monotonic()
        while any(process.is_alive() for process in clients) and results.qsize() < options.clients:
            time.sleep(self.rng.uniform(0.3, 1.0) * options.pause)
            if options.kills and self.events.count("proxy") >= options.kills:
                continue
            if options.no_failover or self.rng.random() < 0.75:
                self.kill_proxy()
            else:
                self.fail_over()
            if sys.stderr.isatty() or time.monotonic() - shown > 15:
                shown = time.monotonic()
                print(f"  {shown - started:6.0f} s: {self.events.count('proxy')} proxies killed, "
                      f"{self.events.count('failover')} failovers", file=sys.stderr, flush=True)
        collected = [results.get() for _ in clients]
        for process in clients:
            process.join()
        return collected

    def settle(self):
        for proxy in self.proxies:
            if not proxy.running():
                proxy.launch()
            proxy.wait_ready()

    def billed(self):
        """Sum of the calls in an export of all journals."""
        out = os.path.join(self.folder, "exports")
        os.makedirs(out, exist_ok=True)
        command = [TOLLGATE, "export", "--period", time.strftime("%Y-%m", time.gmtime()), "--format", "ndjson", "--to", out,
                   "--book", os.path.join(self.folder, "book.sqlite")]
        for proxy in self.proxies:
            command += ["--journal", os.path.join(proxy.folder, "journal")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise AssertionError(f"export failed: {done.stderr}")
        return sums_of_files(out)

    def verify(self):
        command = [TOLLGATE, "export", "--verify", "-c", self.proxies[0].config_path, "--token-file",
                   os.path.join(self.proxies[0].folder, "admin.token"), "--book", os.path.join(self.folder, "book.sqlite")]
        for proxy in self.proxies:
            command += ["--journal", os.path.join(proxy.folder, "journal"), "--admin", f"http://127.0.0.1:{proxy.admin_port}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    def stop(self):
        for process in [*self.proxies, self.crm, self.primary, *([self.replica] if self.replica else [])]:
            process.stop(30)
        self.link.stop()
        self.way.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=900, help="longest time of the load")
    parser.add_argument("--proxies", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--window", type=int, default=20, help="seconds")
    parser.add_argument("--pause", type=float, default=3, help="seconds between two faults, at most")
    parser.add_argument("--downtime", type=float, default=0.5)
    parser.add_argument("--lag", type=float, default=0.05, help="replication lag in seconds")
    parser.add_argument("--kills", type=int, default=0, help="stop killing proxies after so many (0: never)")
    parser.add_argument("--no-failover", action="store_true")
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the folder for inspection")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="storm-")
    print(f"seed {options.seed}, folder {folder}", flush=True)
    storm = Storm(options, folder)
    problems = []
    try:
        collected = storm.run()
        storm.settle()
        statuses, times = {}, {}
        for _, _, counts, admitted in collected:
            for status, count in counts.items():
                statuses[status] = statuses.get(status, 0) + count
            for user, raw in admitted.items():
                times.setdefault(user, array.array("d")).frombytes(raw)
        print(f"calls {sum(statuses.values())}: {dict(sorted(statuses.items()))}; proxies killed {storm.events.count('proxy')}, "
              f"failovers {storm.events.count('failover')}")
        worst = max((worst_window(values, options.window) for values in times.values()), default=0)
        print(f"most calls of a user surely within {options.window} s: {worst}, limit {options.limit}")
        if worst > options.limit:
            problems.append("a window above the limit")
        if not options.no_verify:
            verified = storm.verify()
            print("reconciliation: " + ((verified.stdout + verified.stderr).strip().splitlines() or ["?"])[-1])
            if verified.returncode != 0:
                problems.append(f"reconciliation: exit {verified.returncode}\n{verified.stdout[-3000:]}\n{verified.stderr[-2000:]}")
        for proxy in storm.proxies:
            proxy.stop(60)
        upstream = storm.crm.counts()["operations"].get("GET Case", 0)
        billed, interrupted = storm.billed()
        print(f"upstream counted {upstream}, billed {billed} (of these cut off by a death: {interrupted})")
        # Of what was cut off by a death, some may have been on the verge of going out.
        if not billed - interrupted <= upstream <= billed:
            problems.append(f"billed {billed}, {interrupted} of these cut off, is not what the upstream counted, {upstream}")
    finally:
        storm.stop()
    for problem in problems:
        print("FAILED: " + problem)
    print("held" if not problems else "did not hold")
    if not options.keep and not problems:
        import shutil
        shutil.rmtree(folder)
    return 1 if problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
