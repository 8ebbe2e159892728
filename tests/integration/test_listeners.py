"""How connections come in: TLS as scanners see it, PROXY headers, Unix sockets; and what routes change on the way."""
import datetime
import os
import re
import socket
import ssl
import struct
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from harness import Client, eventually, free_port
from http1 import Closed, render
from requests_crm import CASES


def tls_listener(certificate, port=None, **more):
    port = port or free_port()
    return port, {"address": f"127.0.0.1:{port}", "tls": {"certificate_file": certificate[0], "key_file": certificate[1], **more}}


def s_client(port, authority, *options, send=b""):
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost",
                           "-CAfile", authority.ca_file, *options], input=send, capture_output=True, timeout=30,
                          check=False).stdout.decode(errors="replace")


# ---------------------------------------------------------------- TLS

def test_sslscan_finds_nothing_old_and_nothing_weak(proxy, crm, authority):
    port, listener = tls_listener(authority.issue("server"))
    proxy(listeners=[listener])
    out = subprocess.run(["sslscan", "--no-colour", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=120,
                         check=False).stdout
    for old in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        assert re.search(rf"^{re.escape(old)}\s+disabled", out, re.M), out
    for present in ("TLSv1.2", "TLSv1.3"):
        assert re.search(rf"^{re.escape(present)}\s+enabled", out, re.M), out
    accepted = re.findall(r"^(?:Preferred|Accepted)\s+(\S+)\s+(\d+) bits\s+(\S+)", out, re.M)
    assert accepted
    for _, bits, cipher in accepted:
        assert int(bits) >= 128 and re.match(r"TLS_(AES|CHACHA20)|ECDHE-\w+-(AES\d+-GCM|CHACHA20)", cipher), cipher
    assert out.count("not vulnerable to heartbleed") == 2
    assert "Session renegotiation not supported" in out
    assert "Compression: NONE" in s_client(port, authority, "-tls1_2")


def test_only_http_1_1_is_negotiated(proxy, crm, authority):
    port, listener = tls_listener(authority.issue("server"))
    proxy(listeners=[listener])
    assert "ALPN protocol: http/1.1" in s_client(port, authority, "-alpn", "h2,http/1.1")
    assert "no application protocol" in subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2"], input=b"", capture_output=True,
        timeout=30, check=False).stderr.decode()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_by_another_process_with_the_same_secret(proxy, crm, authority, tmp_path, version):
    certificate = authority.issue("server")
    secrets = {}
    for name in ("one", "two"):
        secrets[name] = tmp_path / f"{name}.secret"
        secrets[name].write_bytes(os.urandom(48))
    ports, gates = [], []
    for name in ("first", "second"):
        port, listener = tls_listener(certificate, ticket_secret_files=[str(secrets["one"])])
        gates.append(proxy(name=name, listeners=[listener]))
        ports.append(port)
    session = str(tmp_path / "session.pem")
    get = b"GET /echo HTTP/1.1\r\nHost: crm.test\r\nConnection: close\r\n\r\n"

    def ask(port, *options):
        with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile",
                               authority.ca_file, "-ign_eof", version, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as run:
            return run.communicate(get, timeout=30)[0].decode(errors="replace")

    assert "New, TLS" in ask(ports[0], "-sess_out", session)
    assert "Reused, TLS" in ask(ports[1], "-sess_in", session)
    # A new secret in front of the old one, then the old one gone.
    listener["tls"]["ticket_secret_files"] = [str(secrets["two"]), str(secrets["one"])]
    gates[1].write_config(listeners=[listener])
    gates[1].reload()
    eventually(lambda: "generation 2" in gates[1].log(), 10, "reload")
    assert "Reused, TLS" in ask(ports[1], "-sess_in", session)
    listener["tls"]["ticket_secret_files"] = [str(secrets["two"])]
    gates[1].write_config(listeners=[listener])
    gates[1].reload()
    eventually(lambda: "generation 3" in gates[1].log(), 10, "reload")
    assert "New, TLS" in ask(ports[1], "-sess_in", session)


def ocsp_response(authority, certificate, path, days):
    with open(certificate[0], "rb") as file:
        leaf = x509.load_pem_x509_certificate(file.read())
    now = datetime.datetime.utcnow()
    response = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf, issuer=authority.certificate, algorithm=hashes.SHA256(), cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=now - datetime.timedelta(days=2), next_update=now + datetime.timedelta(days=days), revocation_time=None,
        revocation_reason=None).responder_id(ocsp.OCSPResponderEncoding.HASH, authority.certificate).sign(
            authority.key, hashes.SHA256())
    with open(path, "wb") as file:
        file.write(response.public_bytes(serialization.Encoding.DER))
    return str(path)


def test_an_ocsp_response_is_stapled_until_it_expires(proxy, crm, authority, tmp_path):
    certificate, other = authority.issue("server"), authority.issue("other", ["other.test"])
    staple = ocsp_response(authority, certificate, tmp_path / "server.ocsp", 3)
    port, listener = tls_listener(certificate, ocsp_file=staple)
    gate = proxy(listeners=[listener])
    assert "OCSP Response Status: successful" in s_client(port, authority, "-status")
    ocsp_response(authority, certificate, staple, -1)
    gate.reload()
    eventually(lambda: "no response sent" in s_client(port, authority, "-status"), 10, "an expired one is not sent")
    ocsp_response(authority, other, staple, 3)
    gate.reload()
    eventually(lambda: "says nothing about its certificate" in gate.log(), 10, "one of another certificate is refused")
    assert gate.running()


# ---------------------------------------------------------------- PROXY protocol

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(source, port=4711):
    address = socket.inet_pton(socket.AF_INET6 if ":" in source else socket.AF_INET, source)
    body = address + address + struct.pack(">HH", port, 443)
    return SIGNATURE + bytes([0x21, 0x21 if ":" in source else 0x11]) + struct.pack(">H", len(body)) + body


def announced(port, header, piece=None):
    client = Client(port)
    for at in range(0, len(header), piece or len(header)):
        client.send(header[at:at + (piece or len(header))])
        if piece:
            time.sleep(0.01)
    return client


@pytest.fixture
def balanced(proxy, crm):
    port = free_port()
    gate = proxy(listeners=[{"address": f"127.0.0.1:{port}", "proxy_protocol": True, "proxy_protocol_from": ["127.0.0.1"]}])
    return gate, port


@pytest.mark.parametrize("header, source", [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n", "192.0.2.7"), (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", "2001:db8::7"),
    (version_2("192.0.2.8"), "192.0.2.8"), (version_2("2001:db8::8"), "2001:db8::8"), (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (SIGNATURE + b"\x20\0\0\0", "127.0.0.1"), (SIGNATURE + b"\x20\x41\0\2xx", "127.0.0.1")])
@pytest.mark.parametrize("piece", [None, 5])
def test_the_header_says_who_the_client_is(balanced, header, source, piece):
    _, port = balanced
    with announced(port, header, piece) as client:
        for _ in range(2):
            echo = dict(client.request("GET", "/echo").json()["headers"])
            assert echo["X-Forwarded-For"] == source


def test_header_and_request_in_one_packet(balanced):
    _, port = balanced
    with Client(port) as client:
        client.send(version_2("192.0.2.9") + render("GET", "/echo"))
        assert dict(client.read().json()["headers"])["X-Forwarded-For"] == "192.0.2.9"


@pytest.mark.parametrize("wrong", [render("GET", "/echo"), b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n", SIGNATURE + b"\x31\x11\0\0",
                                   b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\n" + b" " * 100])
def test_without_a_proper_header_nobody_is_served(balanced, crm, wrong):
    gate, port = balanced
    with announced(port, wrong) as client:
        assert client.closed_by_peer()
    assert gate.metric("tollgate_proxy_header_failures_total") == 1
    assert crm.targets() == []


@pytest.mark.parametrize("beginning", [b"", b"PROXY", SIGNATURE[:5]])
def test_a_reset_before_the_header_is_whole_ends_the_connection(proxy, crm, beginning):
    """Balancers end their health checks so."""
    port = free_port()
    gate = proxy(listeners=[{"address": f"127.0.0.1:{port}", "proxy_protocol": True}], timeouts={"tls_handshake": "10m"})
    checks = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for check in checks:
        check.sendall(beginning)
    eventually(lambda: gate.metric("tollgate_connections", side="client", state="idle") == 20, 10, "all are accepted")
    for check in checks:
        check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        check.close()
    eventually(lambda: gate.metric("tollgate_connections", side="client", state="idle") == 0, 10, "none stays open")
    assert gate.metric("tollgate_proxy_header_failures_total") == 20


def test_only_named_balancers_may_connect(balanced, crm):
    gate, port = balanced
    with socket.socket() as sock:
        sock.bind(("127.0.0.5", 0))
        sock.connect(("127.0.0.1", port))
        try:
            sock.sendall(version_2("192.0.2.9") + render("GET", "/echo"))
            assert sock.recv(100) == b""
        except OSError:
            pass
    assert gate.metric("tollgate_proxy_header_failures_total") == 1
    assert crm.targets() == []


def test_limits_count_the_client_that_is_announced(proxy, crm):
    port = free_port()
    proxy(listeners=[{"address": f"127.0.0.1:{port}", "proxy_protocol": True}], limits={"per_address": {"connections": 2}})
    clients = [announced(port, version_2(f"192.0.2.{1 + i % 3}")) for i in range(9)]
    served = 0
    for client in clients:
        try:
            served += client.request("GET", "/echo").status == 200
        except (OSError, Closed):
            pass
    # Closed only now: a place that is free again early would serve one whose header was still on its way.
    for client in clients:
        client.close()
    assert served == 6


def test_haproxy_announces_clients_to_us_also_over_tls(proxy, start, crm, authority, tmp_path):
    from harness import Process
    port, listener = tls_listener(authority.issue("server"))
    proxy(listeners=[{**listener, "proxy_protocol": True, "proxy_protocol_from": ["127.0.0.0/8"]}])
    front = {version: free_port() for version in ("send-proxy", "send-proxy-v2")}
    config = "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
    for version, at in front.items():
        config += f"listen {version}\n bind 127.0.0.1:{at}\n server gate 127.0.0.1:{port} {version}\n"
    (tmp_path / "haproxy.cfg").write_text(config)
    balancer = Process(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], str(tmp_path / "haproxy.log"))
    balancer.launch()
    try:
        for at in front.values():
            eventually(lambda at=at: socket.create_connection(("127.0.0.1", at)).close() is None, 5, "haproxy listens")
            with Client(at, tls=authority.client_context()) as client:
                assert dict(client.request("GET", "/echo").json()["headers"])["X-Forwarded-For"] == "127.0.0.1"
    finally:
        balancer.child.terminate()
        balancer.child.wait(10)


# ---------------------------------------------------------------- Unix sockets

def test_clients_come_over_a_unix_socket_and_it_is_taken_over_after_a_kill(proxy, crm, auth, tmp_path):
    path, tcp = str(tmp_path / "gate.sock"), free_port()
    gate = proxy(listeners=[{"address": f"unix:{path}"}, {"address": f"127.0.0.1:{tcp}"}])

    def curl():
        return subprocess.run(["curl", "-sS", "--max-time", "10", "--unix-socket", path, "-H", "Authorization: " + auth["Authorization"],
                               "http://crm.test" + CASES + "/$count", "-o", "/dev/null", "-w", "%{http_code}"],
                              capture_output=True, text=True, check=False).stdout

    assert [curl() for _ in range(10)] == ["200"] * 10
    with Client(tcp) as client:
        assert client.request("GET", "/echo").status == 200
    gate.kill()
    assert os.path.exists(path)
    gate.launch()
    gate.wait_ready()
    assert curl() == "200"
    other = gate.command_run("serve", "-c", gate.config_path, timeout=20)
    assert other.returncode != 0, "a socket that somebody listens on is not taken away"
    assert curl() == "200"


def test_the_crm_is_reached_over_a_unix_socket(proxy, start, crm, auth, tmp_path):
    from harness import Process
    path = str(tmp_path / "crm.sock")
    config = ("defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
              f"listen crm\n bind unix@{path} mode 666\n server crm 127.0.0.1:{crm.port}\n")
    (tmp_path / "haproxy.cfg").write_text(config)
    relay = Process(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], str(tmp_path / "haproxy.log"))
    relay.launch()
    try:
        eventually(lambda: os.path.exists(path), 5, "haproxy listens")
        gate = proxy(upstream=f"unix:{path}")
        with gate.client() as client:
            for _ in range(5):
                assert client.request("GET", CASES + "/$count", auth).status == 200
            assert client.request("GET", "/echo", version="1.0").status == 200
            assert len(gate.call("GET", "/bytes/3000000").body) == 3_000_000
    finally:
        relay.child.terminate()
        relay.child.wait(10)
    reply = gate.call("GET", "/echo")
    assert reply.status == 502 and reply.json()["reason"] == "upstream_unreachable"


# ---------------------------------------------------------------- routes

def test_fields_are_removed_set_and_added(proxy, crm):
    gate = proxy(routes=[
        {"path_prefix": "/echo", "upstream": "crm", "metered": False,
         "request_fields": {"remove": ["x-secret"], "set": {"X-Gate": "one"}, "add": {"X-More": "two"}},
         "reply_fields": {"remove": ["Server"], "set": {"X-Frame-Options": "DENY"}, "add": {"X-Served-By": "gate"}}},
        {"path_prefix": "/", "upstream": "crm"}])
    reply = gate.call("GET", "/echo", {"X-Secret": "a", "X-Gate": "forged", "X-More": "one", "X-Other": "stays"})
    seen = [tuple(pair) for pair in reply.json()["headers"]]
    names = {name.lower() for name, _ in seen}
    assert "x-secret" not in names and ("X-Gate", "one") in seen and ("X-Gate", "forged") not in seen
    assert ("X-More", "one") in seen and ("X-More", "two") in seen and ("X-Other", "stays") in seen
    assert reply.get("X-Frame-Options") == "DENY" and reply.get("X-Served-By") == "gate"


def test_a_route_has_its_own_largest_body(proxy, crm, auth):
    gate = proxy(routes=[{"path_prefix": "/upload", "upstream": "crm", "metered": False, "max_body": 1000},
                         {"path_prefix": "/echo", "upstream": "crm", "metered": False}, {"path_prefix": "/", "upstream": "crm"}])
    assert gate.call("POST", "/upload", body=b"x" * 1000).status == 200
    for reply in (gate.call("POST", "/upload", body=b"x" * 1001),
                  gate.call("POST", "/upload", chunked=[b"x" * 600, b"x" * 600])):
        assert reply.status == 413 and reply.json()["reason"] == "body_too_large"
    assert gate.call("POST", "/echo", body=b"x" * 5000).status == 200


def test_a_browser_may_ask_before_a_call_from_another_site(proxy, crm, auth):
    gate = proxy()
    ask = {"Origin": "https://shop.test", "Access-Control-Request-Method": "POST"}
    assert gate.call("OPTIONS", CASES, ask).status != 401
    assert [target.split(" ")[-1] for target in crm.targets()] != []
    before = len(crm.targets())
    assert gate.call("OPTIONS", CASES, {**ask, "X-HTTP-Method-Override": "GET"}).status == 401
    assert gate.call("OPTIONS", CASES, {"Origin": "https://shop.test"}).status == 401
    assert len(crm.targets()) == before
    assert gate.used(auth) == 0
