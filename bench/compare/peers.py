"""The proxies of the comparison: what each needs installed, how it is configured and started, what it uses.

A peer is a function (setup, name, port) -> Child; Child is a program on one CPU, ended by its own process id. All of them get
one worker on the first CPU of this process; upstream, Redis and load generator get the second. Everything is on loopback and
lives in the temporary folder of the setup.
"""
import base64
import functools
import glob
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
SECRET = "compare-0123456789abcdef0123456789abcdef"
USERS = 1000
TICKS = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
PROXY_CPU, OTHER_CPU = CPUS[0], CPUS[1 % len(CPUS)]
METERED_PATH = "/0/odata/Case(405947d0-2ffb-4ded-8675-0475f19f5a81)"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
HAPROXY = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
LUA_MODULES = [glob.glob(f"/usr/lib*/nginx/modules/{name}.so") for name in ("ndk_http_module", "ngx_http_lua_module")]
LUA_LIBRARIES = ["/usr/share/lua/5.1/nginx/redis.lua", "/usr/share/lua/5.1/resty/core.lua", "/usr/share/lua/5.1/resty/lrucache.lua"]


def missing(program):
    """Debian packages to install before `program` (nginx, haproxy, lua, tollgate) can take part; empty: it can."""
    if program == "nginx" and not NGINX:
        return ["nginx-light"]
    if program == "haproxy" and not HAPROXY:
        return ["haproxy"]
    if program == "lua":
        out = [] if NGINX else ["nginx-light"]
        out += [] if all(LUA_MODULES) else ["libnginx-mod-http-lua"]
        return out + ([] if all(os.path.exists(path) for path in LUA_LIBRARIES) else ["lua-nginx-redis"])
    return []


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


UNDER = {}  # name of a child -> command that it is run under


class Child:
    """A program on one CPU with its output in FOLDER/NAME.log."""

    def __init__(self, command, cpu, folder, name):
        self.log = os.path.join(folder, name + ".log")
        self.port = 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["taskset", "-c", str(cpu), *UNDER.get(name, []), *command], cwd=folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def tree(self):
        """Ids of the process and of everything below it."""
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

    def cpu_us(self):
        """User and system time of the tree so far. The threads' own accounting in ns where the kernel has it, else ticks."""
        total = 0.0
        for pid in self.tree():
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                fine = 0.0
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                        fine += int(file.read().split()[0]) / 1000
                total += fine or (int(fields[11]) + int(fields[12])) * 1e6 / TICKS
            except OSError:
                pass
        return total

    def anonymous_bytes(self):
        """Memory of the tree that no file backs: heap, stacks, tables; not the kernel's socket buffers."""
        total = 0
        for pid in self.tree():
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += int(re.search(r"^Anonymous:\s+(\d+)", file.read(), re.MULTILINE).group(1)) * 1024
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
        """Itself, once something listens there; RuntimeError with the end of its log when it does not come up in 20 s."""
        self.port = port
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return self
            except OSError:
                time.sleep(0.05)
        self.give_up("did not come up")

    def wait_until_ready(self, admin):
        """Itself, once it says that it can serve calls: until then the first ones may be answered 503."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5):
                    return self
            except OSError:
                time.sleep(0.05)
        self.give_up("was not ready in 20 s")

    def give_up(self, what):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            text = file.read()[-3000:]
        self.stop()
        raise RuntimeError(f"{self.process.args[3:]} {what}:\n{text}")


class Setup:
    """What all cases share: the folder, tokens, a certificate, an upstream with 1 KiB and one with 100 KiB replies."""

    def __init__(self, folder, binary):
        self.folder, self.binary = folder, binary
        os.chmod(folder, 0o755)
        self.tokens = self.path("tokens")
        self._write_tokens()
        self.write("secret", SECRET)
        self.certificate, self.key = self.path("certificate.pem"), self.path("key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=portal.example", "-addext", "subjectAltName=DNS:portal.example,IP:127.0.0.1",
                        "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True, timeout=30)
        with open(self.certificate, encoding="ascii") as certificate, open(self.key, encoding="ascii") as key:
            self.write("both.pem", certificate.read() + key.read())
        self.small, self.large = free_port(), free_port()
        self.upstream = self._start_upstream()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def _write_tokens(self):
        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")

        with open(self.tokens, "w", encoding="ascii") as file:
            for number in range(USERS):
                text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(
                    {"iss": "https://idp.example", "aud": "crm-portal", "sub": f"user-{number:06}", "iat": 1_700_000_000,
                     "exp": 4_102_444_800, "org": f"org-{number % 97:04}", "user_type": "portal",
                     "licenses": ["customer portal on-site"]})
                mac = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
                file.write((text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode() + "\n")

    def _start_upstream(self):
        reply = json.dumps({"Id": "405947d0-2ffb-4ded-8675-0475f19f5a81", "Number": "SR00000042", "Subject": "x"})
        reply = reply[:-1] + ',"Notes":"' + "d" * (1024 - len(reply) - 11) + '"}'
        assert len(reply) == 1024, len(reply)
        self.write("large", "0123456789abcdef" * (100 * 1024 // 16))
        return nginx(self, "upstream", self.small, OTHER_CPU, f"""
 sendfile on; tcp_nopush on; default_type application/json; open_file_cache max=4 inactive=600s; open_file_cache_valid 600s;
 server {{ listen 127.0.0.1:{self.small} backlog=4096; location / {{ return 200 '{reply}'; }} }}
 server {{ listen 127.0.0.1:{self.large} backlog=4096; location / {{ root {self.folder}; try_files /large =404; }} }}
""")

    def redis(self, name):
        port = free_port()
        return Child(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
                      self.folder], OTHER_CPU, self.folder, name + "-redis").wait_for(port)


# ---- nginx


def nginx(setup, name, port, cpu, http, head=""):
    folder = setup.folder
    temporary = " ".join(f"{kind}_temp_path {folder}/{name}_{kind};"
                         for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = setup.write(name + ".conf", f"""{head}
daemon off; master_process off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 16384; }}
http {{ access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s; {temporary}
{http}
}}
""")
    return Child([NGINX, "-c", conf, "-p", folder, "-e", f"{folder}/{name}.err"], cpu, folder, name).wait_for(port)


def nginx_proxy(setup, name, port, tls=False, http="", location="", head="", upstream=None):
    listen = f"listen 127.0.0.1:{port}{' ssl' if tls else ''} backlog=4096;"
    if tls:
        http += f" ssl_certificate {setup.certificate}; ssl_certificate_key {setup.key}; ssl_protocols TLSv1.3;"
    return nginx(setup, name, port, PROXY_CPU, f"""{http}
 upstream u {{ server 127.0.0.1:{upstream or setup.small}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 600s; }}
 server {{ {listen}
  location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
   {location} }} }}""", head)


def nginx_large(setup, name, port, tuned):
    """100 KiB replies. Untuned, most of a reply does not fit into the buffers and is written to a temporary file."""
    location = "proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;" if tuned else ""
    return nginx_proxy(setup, name, port, location=location, upstream=setup.large)


def nginx_limit_req(setup, name, port, reject):
    rate, burst = ("1r/m", "") if reject else ("1000000r/s", " burst=1000000 nodelay")
    return nginx_proxy(setup, name, port, location=f"limit_req zone=token{burst};", http=f"""
 limit_req_zone $http_authorization zone=token:32m rate={rate}; limit_req_status 429; limit_req_log_level info;""")


def nginx_lua_redis(setup, name, port, reject):
    """Token verified and remembered, then one script a call in Redis: meter.lua. With Debian's lua-nginx-redis."""
    store = setup.redis(name)
    try:
        head = "".join(f"load_module {found[0]};\n" for found in LUA_MODULES)
        limit = 1 if reject else 1_000_000_000
        child = nginx_proxy(setup, name, port, head=head, location="access_by_lua_block { meter.access() }", http=f"""
 lua_package_path "{HERE}/?.lua;/usr/share/lua/5.1/?.lua;;";
 init_by_lua_block {{
   require "resty.core"
   meter = require "meter"
   meter.configure {{ secret = "{SECRET}", redis_port = {store.port}, window = 86400, limit = {limit} }}
 }}""")
    except Exception:
        store.stop()
        raise
    child.store = store
    return child


# ---- HAProxy


def haproxy(setup, name, port, tls=False, rules="", defaults="", upstream=None):
    conf = setup.write(name + ".cfg", f"""global
  nbthread 1
  maxconn 6000
  no strict-limits
defaults
  mode http
  timeout client 600s
  timeout server 600s
  timeout connect 5s
  timeout http-keep-alive 600s
  http-reuse always
{defaults}frontend f
  bind 127.0.0.1:{port} backlog 4096{f' ssl crt {setup.path("both.pem")} ssl-min-ver TLSv1.3' if tls else ''}
{rules}  default_backend b
backend b
  server s 127.0.0.1:{upstream or setup.small} pool-max-conn 512
""")
    return Child([HAPROXY, "-db", "-f", conf], PROXY_CPU, setup.folder, name).wait_for(port)


def haproxy_jwt(setup, name, port, reject):
    return haproxy(setup, name, port, rules=f"""  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str HS256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{SECRET}") -m int 1 }}
  http-request set-var(txn.sub) var(txn.bearer),jwt_payload_query('$.sub')
  stick-table type string len 64 size 100k expire 24h store http_req_rate(24h)
  http-request track-sc0 var(txn.sub)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {1 if reject else 1_000_000_000} }}
""")


def haproxy_large(setup, name, port, splice):
    return haproxy(setup, name, port, defaults="  option splice-response\n" if splice else "", upstream=setup.large)


# ---- Tollgate


def tollgate(setup, name, port, metered=True, tls=False, reject=False, upstream=None):
    listener = {"address": f"127.0.0.1:{port}"}
    if tls:
        listener["tls"] = {"certificate_file": setup.certificate, "key_file": setup.key, "min_version": "1.3"}
    store, admin = setup.redis(name), free_port()
    config = setup.write(name + ".yaml", json.dumps({  # JSON is YAML
        "version": 1, "workers": 1, "listeners": [listener], "admin": {"address": f"127.0.0.1:{admin}"},
        "upstreams": {"crm": {"servers": [f"http://127.0.0.1:{upstream or setup.small}"]}},
        "routes": [{"path_prefix": "/", "upstream": "crm", "metered": metered}],
        "store": {"url": f"redis://127.0.0.1:{store.port}/0", "timeout": "1s"},
        "journal": {"directory": setup.path(name + "-journal")},
        "access_log": {"file": setup.path(name + "-access.log")},
        "identity": {"jwt": [{"issuer": "https://idp.example", "audience": "crm-portal", "algorithms": ["HS256"],
                              "secret_file": setup.path("secret")}]},
        "licensing": {"system": "bpmonline", "main_products": ["service_enterprise"], "main_product_users": 100},
        "quotas": [{"name": "daily", "limit": 1 if reject else 1_000_000_000, "window": "24h", "per": ["user"], "on": "licensed"}],
        "overload": {"lag": "0"},  # a saturated worker is the point here, and a busy machine may pause it
        "timeouts": {"client_idle": "600s"},
    }))
    try:
        child = Child([setup.binary, "serve", "-c", config], PROXY_CPU, setup.folder, name).wait_for(port).wait_until_ready(admin)
    except Exception:
        store.stop()
        raise
    child.store = store
    return child


# ---- the cases: group -> name -> (start, needs, what it does)

SEES = "token, licence, exact quota in Redis, journal, access log, metrics"
START = functools.partial
CASES = {
    "proxying": {
        "nginx": (nginx_proxy, "nginx", "plain reverse proxy"),
        "haproxy": (haproxy, "haproxy", "plain reverse proxy"),
        "haproxy-jwt": (START(haproxy_jwt, reject=False), "haproxy", "HS256 verified, stick table on the subject"),
        "nginx-limit-req": (START(nginx_limit_req, reject=False), "nginx", "limit_req on the token, unverified"),
        "nginx-lua-redis": (START(nginx_lua_redis, reject=False), "lua", "HS256 verified, a script in Redis a call"),
        "tollgate-plain": (START(tollgate, metered=False), "tollgate", "unmetered route: access log, metrics"),
        "tollgate": (tollgate, "tollgate", SEES),
    },
    "rejecting": {
        "nginx-limit-req": (START(nginx_limit_req, reject=True), "nginx", "limit_req on the token, unverified"),
        "haproxy-jwt": (START(haproxy_jwt, reject=True), "haproxy", "HS256 verified, stick table on the subject"),
        "nginx-lua-redis": (START(nginx_lua_redis, reject=True), "lua", "HS256 verified, a script in Redis a call"),
        "tollgate": (START(tollgate, reject=True), "tollgate", SEES + "; problem document"),
    },
    "tls": {
        "nginx": (START(nginx_proxy, tls=True), "nginx", "plain reverse proxy"),
        "haproxy": (START(haproxy, tls=True), "haproxy", "plain reverse proxy"),
        "tollgate": (START(tollgate, tls=True), "tollgate", SEES),
    },
    "handshake": {
        "nginx": (START(nginx_proxy, tls=True), "nginx", "P-256 certificate, no resumption"),
        "haproxy": (START(haproxy, tls=True), "haproxy", "P-256 certificate, no resumption"),
        "tollgate": (START(tollgate, tls=True), "tollgate", "P-256 certificate, no resumption"),
    },
    "large": {
        "nginx": (START(nginx_large, tuned=False), "nginx", "buffers as they come"),
        "nginx-tuned": (START(nginx_large, tuned=True), "nginx", "buffers that hold the reply"),
        "haproxy": (START(haproxy_large, splice=False), "haproxy", "plain reverse proxy"),
        "haproxy-splice": (START(haproxy_large, splice=True), "haproxy", "the kernel moves the bytes"),
        "tollgate": (lambda setup, name, port: tollgate(setup, name, port, upstream=setup.large), "tollgate", SEES),
    },
    "idle": {
        "nginx": (nginx_proxy, "nginx", "plain"),
        "haproxy": (haproxy, "haproxy", "plain"),
        "tollgate": (tollgate, "tollgate", "plain"),
        "nginx-tls": (START(nginx_proxy, tls=True), "nginx", "TLS 1.3"),
        "haproxy-tls": (START(haproxy, tls=True), "haproxy", "TLS 1.3"),
        "tollgate-tls": (START(tollgate, tls=True), "tollgate", "TLS 1.3"),
    },
}
