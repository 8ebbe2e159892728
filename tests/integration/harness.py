"""Real parts for the integration tests: the proxy, Redis, the stand-in CRM, certificates and tokens.

Everything listens on loopback ports that were free a moment ago, lives in a temporary folder and is stopped by its
own process id. Binaries: TOLLGATE_BINARY and STANDIN_BINARY, else build/release.
"""
import datetime
import ipaddress
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import time

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from http1 import Client, Closed

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLLGATE = os.environ.get("TOLLGATE_BINARY", os.path.join(ROOT, "build/release/tollgate"))
STANDIN = os.environ.get("STANDIN_BINARY", os.path.join(ROOT, "build/release/standin_crm"))
FLAVOUR = os.environ.get("TOLLGATE_FLAVOUR", "release")  # of the proxy: release, asan, tsan
SANITIZED = FLAVOUR != "release"
PATIENCE = 6 if SANITIZED else 1  # sanitized programs are slower: bounds on time are wider by this

SECRET = "integration-secret-0123456789abcdef-0123456789abcdef-0123456789abcdef"
ISSUER = "https://idp.test"
AUDIENCE = "crm-portal"
CUSTOMER = "customer portal on-site"
SELF_SERVICE = "self-service portal cloud"
PARTNER = "partner portal cloud"


_handed_out = set()


def free_port():
    """A port that nobody listens on, and that was given to nobody in this run.

    Below those that the kernel gives to connections: a program that is killed and started again finds its port free. A
    Redis Cluster's second port, 10000 further on, is below them too, and none of these.
    """
    while True:
        port = random.randrange(12_000, 22_000)
        if port in _handed_out:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port


def preloadable(source, folder):
    """Path of the library made of one of the C files here, for LD_PRELOAD."""
    path = os.path.join(folder, os.path.splitext(source)[0] + ".so")
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), source)
    subprocess.run(["cc", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-o", path, here], check=True)
    return path


def eventually(condition, timeout=10, what="condition"):
    """Polls until condition() is truthy and returns it."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        try:
            value = condition()
            if value:
                return value
        except (OSError, Closed, AssertionError, KeyError, ValueError) as error:
            value = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {timeout * PATIENCE} s; last: {value!r}")
        time.sleep(0.02)


def token(user, licenses=(CUSTOMER,), user_type="portal", secret=SECRET, algorithm="HS256", headers=None, lifetime=3600, **claims):
    now = int(time.time())
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + lifetime, "user_type": user_type,
               "licenses": list(licenses)}
    payload.update(claims)
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, secret, algorithm=algorithm, headers=headers)


def bearer(*args, **kwargs):
    return {"Authorization": "Bearer " + token(*args, **kwargs)}


class Ended(Exception):
    """A process that should be running is not: no use in waiting."""


class Heir:
    """A process that one of ours started and that outlives it: ours to wait for once its parent has ended, when orphans
    come to this process (prctl PR_SET_CHILD_SUBREAPER). As far as needed like subprocess.Popen."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Process:
    """A child with its log in a file, or in the descriptors stdout and stderr; stopped by its id."""

    stdout = stderr = None

    def __init__(self, command, log, env=None):
        self.command, self.log_path, self.env = command, log, env or {}
        self.child = None

    def launch(self):
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.stdout or log,
                                          stderr=self.stderr or log, env={**os.environ, **self.env}, start_new_session=True)

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, timeout=20):
        if not self.running():
            return self.child.returncode if self.child else None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.command[0]} did not end within {timeout} s of SIGTERM\n{self.log()}")

    def kill(self):
        if self.running():
            self.child.kill()
            self.child.wait(10)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


class Standin(Process):
    def __init__(self, folder, name="crm", tls=None, port=0):
        self.port = port
        command = [STANDIN, "--listen", f"127.0.0.1:{port}"]
        if tls:
            command += ["--tls-certificate", tls[0], "--tls-key", tls[1]]
        self.tls = tls
        super().__init__(command, os.path.join(folder, f"{name}.log"))

    def start(self):
        start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        self.launch()

        def listening():
            if not self.running():
                raise Ended(self.log())
            found = re.findall(r"listening on \S+:(\d+)", self.log()[start:])
            return found and int(found[-1])

        self.port = eventually(listening, 10, "stand-in CRM listens")
        self.command[2] = f"127.0.0.1:{self.port}"  # a restart keeps the port
        return self

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"

    def _client(self):
        context = None
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return Client(self.port, tls=context)

    def counts(self):
        with self._client() as client:
            return client.request("GET", "/_standin/counts").json()

    def targets(self):
        return self.counts()["targets"]

    def reset(self):
        with self._client() as client:
            assert client.request("POST", "/_standin/reset", body=b"").status == 204

    def settings(self, **values):
        with self._client() as client:
            assert client.request("POST", "/_standin/settings", body=json.dumps(values).encode()).status == 204


class Redis(Process):
    def __init__(self, folder, name="redis", extra=()):
        self.port = free_port()
        self.folder = os.path.join(folder, name)
        os.makedirs(self.folder, exist_ok=True)
        super().__init__(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                          "--dir", self.folder, *extra], os.path.join(folder, f"{name}.log"))

    def start(self):
        self.launch()
        eventually(lambda: self.command_line("PING") == "PONG", 10, "redis answers")
        return self

    def command_line(self, *words):
        out = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=10, check=False)
        return out.stdout.strip()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"


def merge(base, changes):
    """base with changes laid over it, key by key; lists are replaced."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
        if value is None:
            del out[key]
    return out


def sums_of_files(folder):
    """(calls, of these interrupted) of all billing files there."""
    rows = []
    for name in os.listdir(folder):
        if name.endswith(".ndjson") and not name.endswith(".licences.ndjson"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                rows += map(json.loads, file)
    return sum(row.get("calls", 0) for row in rows), sum(row.get("interrupted", 0) for row in rows)


class Proxy(Process):
    """The program under test with a configuration of its own."""

    def __init__(self, folder, upstream, store, name="tollgate", changes=None):
        self.folder = os.path.join(folder, name)
        os.makedirs(self.folder, exist_ok=True)
        self.port, self.admin_port = free_port(), free_port()
        self.admin_token = "admin-token-0123456789"
        self.write_file("hs256.key", SECRET)
        self.write_file("admin.token", self.admin_token)
        self.config_path = os.path.join(self.folder, "tollgate.yaml")
        self.settings = merge({
            "version": 1,
            "workers": 2,
            "listeners": [{"address": f"127.0.0.1:{self.port}"}],
            "admin": {"address": f"127.0.0.1:{self.admin_port}", "token_file": "admin.token"},
            "upstreams": {"crm": {"servers": [upstream] if isinstance(upstream, str) else upstream}},
            "routes": [{"path_prefix": "/open", "upstream": "crm", "metered": False},
                       {"path_prefix": "/echo", "upstream": "crm", "metered": False},
                       {"path_prefix": "/bytes", "upstream": "crm", "metered": False},
                       {"path_prefix": "/upload", "upstream": "crm", "metered": False},
                       {"path_prefix": "/", "upstream": "crm"}],
            # A machine that is busy with tests is late at times; who is turned away for that has tests of its own.
            "overload": {"lag": "0s"},
            "store": {"url": store, "timeout": f"{500 * PATIENCE}ms"},
            "journal": {"directory": "journal", "accounts": 8192, "segment_size": "4MiB"},
            "access_log": {"file": "access.log"},
            "identity": {"jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["HS256"], "secret_file": "hs256.key",
                                  "leeway": "0s"}]},
            "catalogue": {"dialects": ["creatio"]},
            "licensing": {"system": "bpmonline", "main_products": ["service_enterprise"], "main_product_users": 100},
            "quotas": [{"name": "daily", "limit": 1000, "window": "24h", "per": ["user"], "on": "licensed"}],
        }, changes or {})
        super().__init__([TOLLGATE, "serve", "-c", self.config_path], os.path.join(folder, f"{name}.log"))

    def write_file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def write_config(self, **changes):
        self.settings = merge(self.settings, changes)
        with open(self.config_path, "w", encoding="utf-8") as file:
            yaml.safe_dump(self.settings, file, sort_keys=False)

    def start(self):
        self.write_config()
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            if not self.running():
                raise Ended(f"the proxy ended with code {self.child.returncode}\n{self.log()}")
            return self.admin("/readyz").status == 200

        eventually(ready, 15, "the proxy is ready")

    def reload(self):
        self.signal(signal.SIGHUP)

    def client(self, **kwargs):
        return Client(self.port, **kwargs)

    def call(self, method, target, headers=(), body=None, **kwargs):
        """One request on a connection of its own."""
        with self.client() as client:
            return client.request(method, target, headers, body, **kwargs)

    def admin(self, path, method="GET", with_token=False, body=None):
        headers = {"Authorization": "Bearer " + self.admin_token} if with_token else {}
        with Client(self.admin_port, timeout=10) as client:
            return client.request(method, path, headers, body)

    def metrics(self):
        """{'name{label="v"}': value}"""
        reply = self.admin("/metrics")
        assert reply.status == 200, reply
        out = {}
        for line in reply.body.decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
        return out

    def metric(self, name, **labels):
        """Sum of the series of that name whose labels include the given ones."""
        total = 0.0
        for series, value in self.metrics().items():
            base, _, rest = series.partition("{")
            if base == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
                total += value
        return total

    def usage(self, headers):
        reply = self.call("GET", "/.tollgate/usage", headers)
        assert reply.status == 200, reply
        return reply.json()

    def used(self, headers, name="daily"):
        return next(limit["used"] for limit in self.usage(headers)["limits"] if limit["name"] == name)

    def billed(self, folder):
        """(calls, of these interrupted) in the bill of this proxy's journal, made in `folder`."""
        out = os.path.join(folder, "export")
        os.makedirs(out, exist_ok=True)
        done = self.command_run("export", "--period", time.strftime("%Y-%m", time.gmtime()), "--format", "ndjson", "--to", out,
                                "--journal", os.path.join(self.folder, "journal"), "--book", os.path.join(folder, "book.sqlite"))
        assert done.returncode == 0, done.stderr
        return sums_of_files(out)

    def access_lines(self):
        path = os.path.join(self.folder, "access.log")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file.read().splitlines()]

    def command_run(self, *words, timeout=60):
        return subprocess.run([TOLLGATE, *words], capture_output=True, text=True, timeout=timeout, cwd=self.folder, check=False)


class Authority:
    """A private certificate authority."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "integration test authority")])
        self.certificate = self._builder(name, name, self.key, 3650).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(self.key, hashes.SHA256())
        self.ca_file = self._write("ca.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def _builder(subject, issuer, key, days):
        now = datetime.datetime.utcnow()
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=days)))

    def _write(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def issue(self, label, names=("localhost",), days=90):
        """(certificate file, key file)"""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName(name) for name in names] + [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), self.certificate.subject, key, days) \
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False).sign(self.key, hashes.SHA256())
        return (self._write(f"{label}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
                self._write(f"{label}.key", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                              serialization.NoEncryption())))

    def client_context(self, certificate=None):
        context = ssl.create_default_context(cafile=self.ca_file)
        if certificate:
            context.load_cert_chain(*certificate)
        return context
