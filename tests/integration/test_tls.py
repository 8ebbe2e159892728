"""TLS on each side: clients, upstream, store."""
import shutil
import socket
import ssl
import time

import pytest

from harness import Client, Redis, Standin, eventually, free_port
from http1 import Closed
from requests_crm import CASES


def listener(certificate, **more):
    port = free_port()
    return port, [{"address": f"127.0.0.1:{port}", "tls": {"certificate_file": certificate[0], "key_file": certificate[1], **more}}]


def test_clients_are_served_over_tls(proxy, crm, authority, auth):
    port, listeners = listener(authority.issue("server"))
    gate = proxy(listeners=listeners)
    with Client(port, tls=authority.client_context()) as client:
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")
        reply = client.request("GET", CASES + "/$count", auth)
        assert reply.status == 200 and reply.get("RateLimit")
        echo = dict(client.request("GET", "/echo").json()["headers"])
        assert echo["X-Forwarded-Proto"] == "https"
        assert len(client.request("GET", "/bytes/3000000").body) == 3_000_000
        assert client.request("POST", "/upload", body=b"x" * 2_000_000).json()["body_length"] == 2_000_000
    assert gate.running()


def test_old_protocols_are_refused(proxy, crm, authority):
    port, listeners = listener(authority.issue("server"), min_version="1.3")
    proxy(listeners=listeners)
    context = authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Client(port, tls=context)
    with Client(port, tls=authority.client_context()) as client:
        assert client.request("GET", "/echo").status == 200


def test_the_name_asked_for_chooses_the_certificate(proxy, crm, authority):
    first, second = authority.issue("first", ["one.test"]), authority.issue("second", ["two.test", "*.wild.test"])
    port, listeners = listener(first, certificates=[{"certificate_file": second[0], "key_file": second[1]}])
    proxy(listeners=listeners)
    for name in ("one.test", "two.test", "a.wild.test"):
        with Client(port, tls=authority.client_context(), server_name=name) as client:
            assert client.request("GET", "/echo", {"Host": name}).status == 200


def test_client_certificates_are_demanded_when_configured(proxy, crm, authority):
    port, listeners = listener(authority.issue("server"), client_ca_file=authority.ca_file)
    proxy(listeners=listeners)
    with Client(port, tls=authority.client_context(authority.issue("client", ["client.test"]))) as client:
        assert client.request("GET", "/echo").status == 200
    with pytest.raises((ssl.SSLError, OSError, Closed)):
        with Client(port, tls=authority.client_context()) as client:
            client.request("GET", "/echo")


def test_plain_text_on_a_tls_port_is_not_served(proxy, crm, authority):
    port, listeners = listener(authority.issue("server"))
    proxy(listeners=listeners)
    with Client(port, timeout=5) as client:
        client.send(b"GET /echo HTTP/1.1\r\nHost: crm.test\r\n\r\n")
        try:
            assert b"200" not in client.sock.recv(1000)
        except OSError:
            pass
    assert crm.targets() == []


def test_a_renewed_certificate_is_served_after_a_reload(proxy, crm, authority, tmp_path):
    served = (str(tmp_path / "tls.pem"), str(tmp_path / "tls.key"))

    def put(issued):
        shutil.copy(issued[0], served[0])
        shutil.copy(issued[1], served[1])

    def serial():
        with Client(port, tls=authority.client_context()) as client:
            return client.sock.getpeercert()["serialNumber"]

    put(authority.issue("old", days=10))
    port, listeners = listener(served)
    gate = proxy(listeners=listeners)
    old = serial()
    with Client(port, tls=authority.client_context()) as kept:
        assert kept.request("GET", "/echo").status == 200
        put(authority.issue("new", days=80))
        gate.reload()
        eventually(lambda: serial() != old, 10, "the new certificate is served")
        assert kept.request("GET", "/echo").status == 200
    expiries = [value for name, value in gate.metrics().items() if name.startswith("tollgate_certificate_expiry_timestamp_seconds{")]
    assert expiries and abs(max(expiries) - time.time() - 80 * 86_400) < 86_400


def test_a_handshake_under_way_survives_new_certificates(proxy, crm, authority, tmp_path):
    served = (str(tmp_path / "tls.pem"), str(tmp_path / "tls.key"))

    def put(issued):
        shutil.copy(issued[0], served[0])
        shutil.copy(issued[1], served[1])

    put(authority.issue("first"))
    port, listeners = listener(served)
    gate = proxy(listeners=listeners)
    waiting = []
    for _ in range(8):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        hello = outgoing.read()
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.sendall(hello[:40])
        waiting.append((sock, hello[40:], session, incoming, outgoing))
    for generation in range(3):
        put(authority.issue(f"next-{generation}"))
        before = gate.metric("tollgate_config_last_reload_success_timestamp_seconds")
        gate.reload()
        eventually(lambda: gate.log().count("configuration reloaded") == generation + 1, 10, "the reload")
        assert before > 0
    for sock, rest, session, incoming, outgoing in waiting:
        sock.sendall(rest)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = sock.recv(65536)
                assert data, "the server gave the handshake up"
                incoming.write(data)
                sock.sendall(outgoing.read())
        sock.close()


@pytest.fixture
def tls_crm(start, tmp_path, authority):
    return start(Standin(str(tmp_path), name="tls-crm", tls=authority.issue("crm", ["localhost"])))


def test_an_upstream_over_tls_is_verified(proxy, tls_crm, authority, auth):
    gate = proxy(upstream=tls_crm.url, upstreams={"crm": {"tls": {"ca_file": authority.ca_file}}})
    with gate.client() as client:
        assert [client.request("GET", CASES + "/$count", auth).status for _ in range(5)] == [200] * 5
        assert len(client.request("GET", "/bytes/2000000").body) == 2_000_000
    assert tls_crm.counts()["requests"] == 6


def test_an_upstream_of_an_unknown_authority_is_not_trusted(proxy, tls_crm, auth):
    gate = proxy(upstream=tls_crm.url)
    assert gate.call("GET", CASES, auth).status == 502
    assert tls_crm.counts()["requests"] == 0


def test_an_upstream_with_another_name_is_not_trusted(proxy, tls_crm, authority, auth):
    gate = proxy(upstream=tls_crm.url, upstreams={"crm": {"tls": {"ca_file": authority.ca_file, "server_name": "other.test"}}})
    assert gate.call("GET", CASES, auth).status == 502
    assert tls_crm.counts()["requests"] == 0


def test_a_store_over_tls(proxy, start, tmp_path, crm, authority, auth):
    certificate = authority.issue("redis", ["localhost"])
    redis = Redis(str(tmp_path), name="tls-redis")
    port = free_port()
    redis.command += ["--tls-port", str(port), "--tls-cert-file", certificate[0], "--tls-key-file", certificate[1],
                      "--tls-ca-cert-file", authority.ca_file, "--tls-auth-clients", "no"]
    start(redis)
    gate = proxy(store=f"rediss://localhost:{port}/0", store_settings={"ca_file": authority.ca_file, "timeout": "1s"})
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    assert gate.used(auth) == 1
