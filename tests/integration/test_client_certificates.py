"""Callers known by the certificate that they prove to hold in Tollgate's own handshake, and by nothing that a header says."""
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness import Authority, bearer, eventually, free_port
from http1 import Client, Closed
from requests_crm import CASES

OPEN = {"system": "none", "main_products": None, "main_product_users": None}


def issue(authority, label, common_names, alternatives=(), days=90):
    """A client's certificate: (file, key file, SHA-256 in hexadecimal)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    builder = authority._builder(subject, authority.certificate.subject, key, days)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(alternatives)), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return (authority._write(f"{label}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            authority._write(f"{label}.key", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                               serialization.NoEncryption())),
            certificate.fingerprint(hashes.SHA256()).hex())


@pytest.fixture
def mutual(proxy, tmp_path):
    """mutual(user="subject_cn", users="ann,...") -> (proxy, authority, port with TLS)"""
    authority = Authority(str(tmp_path / "ca"))
    server = authority.issue("server")

    def make(user, users="", **more):
        port, plain = free_port(), free_port()
        (tmp_path / "users.csv").write_text("user,organization,license,user_type,certificate\n" + users)
        gate = proxy(listeners=[{"address": f"127.0.0.1:{port}",
                                 "tls": {"certificate_file": server[0], "key_file": server[1], "client_ca_file": authority.ca_file,
                                         **more}},
                                {"address": f"127.0.0.1:{plain}"}],
                     identity={"client_certificate": {"user": user}}, licensing={**OPEN, "directory_file": str(tmp_path / "users.csv")})
        gate.port = plain
        return gate, authority, port

    return make


def call(authority, port, certificate, headers=(), target=CASES, context=None):
    context = context or authority.client_context(certificate[:2])
    with Client(port, tls=context) as client:
        return client.request("GET", target, headers)


def test_the_certificate_says_who_calls(mutual, crm, user):
    gate, authority, port = mutual("subject_cn", f"{user},Acme,,portal,robot-7\n")
    robot, other = issue(authority, "robot", ["robot-7"]), issue(authority, "other", [user + "-itself"])
    assert call(authority, port, robot).status == 200
    assert call(authority, port, other).status == 200
    assert gate.used(bearer(user)) == 1, "listed with this name: his quota"
    assert gate.used(bearer(user + "-itself")) == 1, "not listed: the name is the user's"
    with pytest.raises((ssl.SSLError, OSError, Closed)):
        call(authority, port, None, context=authority.client_context())


def test_fingerprints_are_somebodys_only_when_they_are_listed(mutual, tmp_path, crm, user):
    gate, authority, port = mutual("sha256")
    known, stranger = issue(authority, "known", ["x"]), issue(authority, "stranger", ["x"])
    (tmp_path / "users.csv").write_text("user,certificate,user_type\n" + f"{user},{known[2].upper()},portal\n")
    gate.reload()
    eventually(lambda: call(authority, port, known).status == 200, 10, "the directory is read again")
    refused = call(authority, port, stranger)
    assert (refused.status, refused.json()["reason"]) == (401, "token_missing")


def test_names_that_readers_disagree_about_are_nobodys(mutual, crm, user):
    _, authority, port = mutual("san_uri")
    two = issue(authority, "two", ["x"], [x509.UniformResourceIdentifier("urn:a"), x509.UniformResourceIdentifier("urn:b")])
    refused = call(authority, port, two)
    assert (refused.status, refused.json()["reason"]) == (401, "token_invalid")
    one = issue(authority, "one", ["x"], [x509.UniformResourceIdentifier("urn:" + user)])
    assert call(authority, port, one).status == 200


def test_fields_that_speak_of_certificates_prove_nothing(mutual, crm, user):
    gate, authority, port = mutual("subject_cn")
    robot = issue(authority, "robot", [user])
    forged = [("X-Client-Cert", "CN=root"), ("SSL-Client-S-DN", "CN=root"), ("X-SSL-Client-CN", "root"), ("X-Forwarded-Client-Cert", "Subject=\"CN=root\"")]
    with gate.client() as client:
        assert client.request("GET", CASES, forged).status == 401, "on a connection without a certificate"
    crm.reset()
    assert call(authority, port, robot, forged).status == 200
    assert gate.used(bearer(user)) == 1
    assert gate.used(bearer("root")) == 0


def test_a_token_of_another_user_is_refused(mutual, crm, user):
    _, authority, port = mutual("subject_cn")
    robot = issue(authority, "robot", [user])
    assert call(authority, port, robot, bearer(user)).status == 200
    refused = call(authority, port, robot, bearer("somebody-else"))
    assert refused.status == 401 and "two different users" in refused.json()["detail"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_is_the_same_caller_and_no_other_listeners(mutual, proxy, tmp_path, crm, user, version):
    """Tickets of one secret are opened by every listener; who may use them there is another question (CVE-2025-23419)."""
    secret = tmp_path / "tickets.key"
    secret.write_bytes(b"t" * 64)
    gate, authority, port = mutual("subject_cn", ticket_secret_files=[str(secret)])
    robot = issue(authority, "robot", [user])
    server = authority.issue("open")
    open_port = free_port()
    proxy(name="open", listeners=[{"address": f"127.0.0.1:{open_port}",
                                   "tls": {"certificate_file": server[0], "key_file": server[1], "ticket_secret_files": [str(secret)]}}])

    def connect(at, context, session=None):
        raw = socket.create_connection(("127.0.0.1", at), timeout=10)
        tls = context.wrap_socket(raw, server_hostname="localhost", session=session)
        tls.sendall(f"GET {CASES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while block := tls.recv(65536):
            answer += block
        reused, kept = tls.session_reused, tls.session
        tls.close()
        return int(answer.split()[1]), reused, kept

    context = authority.client_context(robot[:2])
    context.maximum_version = context.minimum_version = version
    status, reused, session = connect(port, context)
    assert (status, reused) == (200, False)
    status, reused, _ = connect(port, context, session)
    assert (status, reused) == (200, True), "the ticket holds the certificate"
    assert gate.used(bearer(user)) == 2

    bare = authority.client_context()
    bare.maximum_version = bare.minimum_version = version
    _, _, foreign = connect(open_port, bare)
    with pytest.raises((ssl.SSLError, OSError, Closed)):
        connect(port, bare, foreign)
