#!/usr/bin/env python3
"""Tollgate beside nginx and HAProxy: what a request costs each of them, in CPU microseconds.

    compare.py [--tiny] [--seconds 8] [--rounds 3] [--connections 64] [--tollgate BINARY] [--json FILE] [CASE...]

The proxy alone on CPU 0; wrk, an nginx upstream with a 1 KiB reply, and Redis on CPU 1; loopback. Rounds are interleaved
(A B C A B C), figures are medians. CPU is user + system time of the whole process tree (with the threads' own accounting from
schedstat), so an idle wait costs nothing. "x up" divides by the upstream's CPU in the same run: machines drift by a quarter within
seconds, that ratio does not. Differences below 8 % are noise.

Everything is bounded: wrk runs for a fixed time, every process is ended by its id.
"""
import argparse
import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
SECRET = "compare-0123456789abcdef0123456789abcdef"
USERS = 1000
TICKS = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
PROXY_CPU, OTHER_CPU = str(CPUS[0]), str(CPUS[1 % len(CPUS)])
METERED_PATH = "/0/odata/Case(405947d0-2ffb-4ded-8675-0475f19f5a81)"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def tokens(path):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")

    with open(path, "w", encoding="ascii") as file:
        for number in range(USERS):
            text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(
                {"iss": "https://idp.example", "aud": "crm-portal", "sub": f"user-{number:06}", "iat": 1_700_000_000, "exp": 4_102_444_800,
                 "org": f"org-{number % 97:04}", "user_type": "portal", "licenses": ["customer portal on-site"]})
            mac = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
            file.write((text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode() + "\n")


class Child:
    def __init__(self, command, cpu, folder, name):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["taskset", "-c", cpu, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)

    def tree(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                        todo += [int(word) for word in file.read().split()]
            except OSError:
                pass
        return found

    def cpu_us(self, only=None):
        """CPU time so far of the tree; with `only`, of the processes of that name. Nanosecond accounting where the kernel has it."""
        total = 0.0
        for pid in self.tree():
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                    if only and only not in file.read():
                        continue
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                coarse = (int(fields[11]) + int(fields[12])) * 1e6 / TICKS
                fine = 0.0
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                        fine += int(file.read().split()[0]) / 1000
                total += fine or coarse
            except OSError:
                pass
        return total

    def stop(self):
        pids = self.tree()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            try:
                self.process.wait(5)
                break
            except subprocess.TimeoutExpired:
                pass
        deadline = time.monotonic() + 3
        while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)

    def wait_for(self, port):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return self
            except OSError:
                time.sleep(0.05)
        with open(self.log, encoding="utf-8", errors="replace") as file:
            raise RuntimeError(f"{self.process.args[3:]} did not come up:\n{file.read()[-3000:]}")


NGINX_HEAD = """daemon off; master_process off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 4096; multi_accept on; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_temp_path {folder}/{name}_body;
 proxy_temp_path {folder}/{name}_proxy; fastcgi_temp_path {folder}/{name}_f; uwsgi_temp_path {folder}/{name}_u; scgi_temp_path {folder}/{name}_s;
"""


def nginx(folder, name, cpu, body, port):
    path = os.path.join(folder, name + ".conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(NGINX_HEAD.format(folder=folder, name=name) + body + "}\n")
    return Child(["/usr/sbin/nginx", "-c", path, "-p", folder, "-e", f"{folder}/{name}.err"], cpu, folder, name).wait_for(port)


def start_upstream(folder, port):
    reply = json.dumps({"Id": "405947d0-2ffb-4ded-8675-0475f19f5a81", "Number": "SR00000042", "Subject": "x"})
    reply = reply[:-1] + ',"Notes":"' + "d" * (1024 - len(reply) - 11) + '"}'
    assert len(reply) == 1024, len(reply)
    return nginx(folder, "upstream", OTHER_CPU,
                 f"server {{ listen 127.0.0.1:{port} reuseport; location / {{ default_type application/json; return 200 '{reply}'; }} }}", port)


def start_nginx(folder, port, upstream, _redis):
    return nginx(folder, "nginx", PROXY_CPU, f"""upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }} }}""", port)


def haproxy(folder, name, port, upstream, rules):
    path = os.path.join(folder, name + ".cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout client 600s
  timeout server 600s
  timeout connect 5s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
{rules}  default_backend b
backend b
  server s 127.0.0.1:{upstream} pool-max-conn 512
""")
    return Child(["/usr/sbin/haproxy", "-db", "-f", path], PROXY_CPU, folder, name).wait_for(port)


def start_haproxy(folder, port, upstream, _redis):
    return haproxy(folder, "haproxy", port, upstream, "")


def start_haproxy_jwt(folder, port, upstream, _redis):
    return haproxy(folder, "haproxy-jwt", port, upstream, f"""  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str HS256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{SECRET}") -m int 1 }}
  http-request set-var(txn.sub) var(txn.bearer),jwt_payload_query('$.sub')
  stick-table type string len 64 size 100k expire 24h store http_req_rate(24h)
  http-request track-sc0 var(txn.sub)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
""")


def tollgate(folder, name, port, upstream, redis, metered):
    admin = free_port()
    config = {
        "version": 1, "workers": 1, "listeners": [{"address": f"127.0.0.1:{port}"}], "admin": {"address": f"127.0.0.1:{admin}"},
        "upstreams": {"crm": {"servers": [f"http://127.0.0.1:{upstream}"]}},
        "routes": [{"path_prefix": "/", "upstream": "crm", "metered": metered}],
        "store": {"url": f"redis://127.0.0.1:{redis}/0", "timeout": "1s"},
        "journal": {"directory": os.path.join(folder, name + "-journal")},
        "access_log": {"file": os.path.join(folder, name + "-access.log")},
        "identity": {"jwt": [{"issuer": "https://idp.example", "audience": "crm-portal", "algorithms": ["HS256"],
                              "secret_file": os.path.join(folder, "secret")}]},
        "licensing": {"system": "bpmonline", "main_products": ["service_enterprise"], "main_product_users": 100},
        "quotas": [{"name": "daily", "limit": 1_000_000_000, "window": "24h", "per": ["user"], "on": "licensed"}],
    }
    path = os.path.join(folder, name + ".yaml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)  # JSON is YAML
    return Child([ARGUMENTS.tollgate, "serve", "-c", path], PROXY_CPU, folder, name).wait_for(port)


def start_tollgate(folder, port, upstream, redis):
    return tollgate(folder, "tollgate", port, upstream, redis, True)


def start_tollgate_plain(folder, port, upstream, redis):
    return tollgate(folder, "tollgate-plain", port, upstream, redis, False)


CASES = {
    "nginx": (start_nginx, "plain reverse proxy"),
    "haproxy": (start_haproxy, "plain reverse proxy"),
    "haproxy-jwt": (start_haproxy_jwt, "HS256 verified, stick table on the subject"),
    "tollgate-plain": (start_tollgate_plain, "unmetered route: proxying, access log, metrics"),
    "tollgate": (start_tollgate, "token, licence, exact quota in Redis, access log, metrics"),
}


def load(folder, port, seconds):
    out = os.path.join(folder, "wrk.json")
    if os.path.exists(out):
        os.unlink(out)
    subprocess.run(["taskset", "-c", OTHER_CPU, "wrk", "-t1", f"-c{ARGUMENTS.connections}", f"-d{seconds}s", "--timeout", "5s", "-s",
                    os.path.join(HERE, "wrk.lua"), f"http://127.0.0.1:{port}"], check=True, timeout=seconds + 30, stdout=subprocess.DEVNULL,
                   env={**os.environ, "COMPARE_TOKENS": os.path.join(folder, "tokens"), "COMPARE_PATH": METERED_PATH, "COMPARE_OUT": out})
    with open(out, encoding="ascii") as file:
        return json.load(file)


def check_once(folder, port):
    """One request must come through whole before anything is measured."""
    with open(os.path.join(folder, "tokens"), encoding="ascii") as file:
        token = file.readline().strip()
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(f"GET {METERED_PATH} HTTP/1.1\r\nHost: portal.example\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
        reply = b""
        while piece := sock.recv(65536):
            reply += piece
    if b" 200 " not in reply.split(b"\r\n", 1)[0] or len(reply.split(b"\r\n\r\n", 1)[-1]) < 1024:
        raise RuntimeError(f"the first request was answered {reply[:300]!r}")


def measure(name, folder):
    starter = CASES[name][0]
    ports = {part: free_port() for part in ("proxy", "upstream", "redis")}
    children = []
    try:
        upstream = start_upstream(folder, ports["upstream"])
        children.append(upstream)
        redis = None
        if name == "tollgate":
            redis = Child(["redis-server", "--port", str(ports["redis"]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder],
                          OTHER_CPU, folder, "redis").wait_for(ports["redis"])
            children.append(redis)
        proxy = starter(folder, ports["proxy"], ports["upstream"], ports["redis"])
        children.append(proxy)
        check_once(folder, ports["proxy"])
        load(folder, ports["proxy"], 1 if ARGUMENTS.tiny else 2)
        before = proxy.cpu_us(), upstream.cpu_us(), redis.cpu_us() if redis else 0.0
        result = load(folder, ports["proxy"], ARGUMENTS.seconds)
        after = proxy.cpu_us(), upstream.cpu_us(), redis.cpu_us() if redis else 0.0
    finally:
        for child in reversed(children):
            child.stop()
    if result["failed"] or result["requests"] == 0:
        raise RuntimeError(f"{name}: {result['failed']} of {result['requests']} requests failed")
    own, up, store = ((b - a) / result["requests"] for a, b in zip(before, after))
    return {"case": name, "cpu_us": own + store, "store_us": store, "x_up": (own + store) / up, "per_second": result["requests"] * 1e6 / result["duration_us"],
            "p50_us": result["p50_us"], "p99_us": result["p99_us"]}


def table(rows):
    base = statistics.median(row["cpu_us"] for row in rows if row["case"] == "nginx") if any(row["case"] == "nginx" for row in rows) else None
    print(f"\n{'case':16}{'CPU us/req':>11}{'min-max':>14}{'in Redis':>10}{'x up':>7}{'x nginx':>9}{'req/s':>9}{'p50 us':>8}{'p99 us':>8}  what it does")
    for name in CASES:
        mine = [row for row in rows if row["case"] == name]
        if not mine:
            continue

        def middle(key, mine=mine):
            return statistics.median(row[key] for row in mine)

        spread = f"{min(row['cpu_us'] for row in mine):.1f}-{max(row['cpu_us'] for row in mine):.1f}"
        ratio = f"{middle('cpu_us') / base:.2f}" if base else "-"
        print(f"{name:16}{middle('cpu_us'):11.1f}{spread:>14}{middle('store_us'):10.1f}{middle('x_up'):7.2f}{ratio:>9}{middle('per_second'):9.0f}"
              f"{middle('p50_us'):8.0f}{middle('p99_us'):8.0f}  {CASES[name][1]}")


def main():
    for program in ("wrk", "redis-server", "taskset"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: ./dev setup installs it")
    rows = []
    with tempfile.TemporaryDirectory(prefix="compare_") as folder:
        os.chmod(folder, 0o755)
        tokens(os.path.join(folder, "tokens"))
        with open(os.path.join(folder, "secret"), "w", encoding="ascii") as file:
            file.write(SECRET)
        for number in range(ARGUMENTS.rounds):
            for name in ARGUMENTS.cases or CASES:
                row = measure(name, folder)
                rows.append(row)
                print(f"round {number + 1}/{ARGUMENTS.rounds} {name}: {row['cpu_us']:.1f} us, {row['per_second']:.0f}/s", file=sys.stderr, flush=True)
    table(rows)
    if len(CPUS) < 2:
        print("one CPU only: proxy and load share it, ratios are not to be trusted")
    if ARGUMENTS.json:
        with open(ARGUMENTS.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="CPU cost of a request: Tollgate beside nginx and HAProxy.")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE", help=" ".join(CASES))
    parser.add_argument("--tiny", action="store_true", help="one second a case, one round: shows that it works, measures nothing")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--tollgate", default=os.path.join(ROOT, "build/release/tollgate"))
    parser.add_argument("--json", help="write every run to this file")
    ARGUMENTS = parser.parse_args()
    ARGUMENTS.tollgate = os.path.abspath(ARGUMENTS.tollgate)
    if ARGUMENTS.tiny:
        ARGUMENTS.seconds, ARGUMENTS.rounds = 1, 1
    ARGUMENTS.seconds = max(1, min(60, ARGUMENTS.seconds))
    ARGUMENTS.rounds = max(1, min(20, ARGUMENTS.rounds))
    ARGUMENTS.connections = max(1, min(1000, ARGUMENTS.connections))
    main()
