"""Keys of other issuers: key sets in files and behind URLs, rotation, and what forgers try."""
import http.server
import json
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from harness import ISSUER, bearer, eventually
from requests_crm import CASES

MAKERS = {
    "RS256": (lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048), RSAAlgorithm),
    "PS256": (lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "ES384": (lambda: ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


def public_numbers_jwk(algorithm, key):
    """PyJWT 2.6 writes RSA and OKP keys; EC keys are written here."""
    if algorithm.startswith("ES"):
        import base64
        size = (key.curve.key_size + 7) // 8
        numbers = key.public_key().public_numbers()

        def text(number):
            return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()

        return {"kty": "EC", "crv": {256: "P-256", 384: "P-384"}[key.curve.key_size], "x": text(numbers.x), "y": text(numbers.y)}
    return json.loads(MAKERS[algorithm][1].to_jwk(key.public_key()))


class Issuer:
    def __init__(self, algorithm, kid):
        self.algorithm, self.kid = algorithm, kid
        self.key = MAKERS[algorithm][0]()

    def jwk(self):
        return {**public_numbers_jwk(self.algorithm, self.key), "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def auth(self, user, **more):
        return bearer(user, secret=self.key, algorithm=self.algorithm, headers={"kid": self.kid, **more})

    def public_pem(self):
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_set(*issuers):
    return json.dumps({"keys": [issuer.jwk() for issuer in issuers]})


def identity(**source):
    return {"jwt": [{"issuer": ISSUER, "audience": "crm-portal", "algorithms": sorted(MAKERS), "leeway": "0s", **source}]}


@pytest.mark.parametrize("algorithm", sorted(MAKERS))
def test_a_key_set_in_a_file_verifies_tokens(proxy, crm, tmp_path, user, algorithm):
    issuer, stranger = Issuer(algorithm, "k1"), Issuer(algorithm, "k1")
    (tmp_path / "keys.json").write_text(key_set(issuer))
    gate = proxy(identity=identity(jwks_file=str(tmp_path / "keys.json")))
    assert gate.call("GET", CASES + "/$count", issuer.auth(user)).status == 200
    assert gate.call("GET", CASES + "/$count", stranger.auth(user)).status == 401


def test_a_changed_key_file_counts_after_a_reload(proxy, crm, tmp_path, user):
    old, new = Issuer("ES256", "old"), Issuer("ES256", "new")
    path = tmp_path / "keys.json"
    path.write_text(key_set(old))
    gate = proxy(identity=identity(jwks_file=str(path)))
    assert gate.call("GET", CASES + "/$count", old.auth(user)).status == 200
    assert gate.call("GET", CASES + "/$count", new.auth(user)).status == 401
    path.write_text(key_set(new))
    gate.reload()
    eventually(lambda: gate.call("GET", CASES + "/$count", new.auth(user)).status == 200, 10, "the new key counts")
    assert gate.call("GET", CASES + "/$count", old.auth(user)).status == 401


def test_a_public_key_is_no_hmac_secret(proxy, crm, tmp_path, user):
    """The old confusion: an RS256 public key used as the secret of an HS256 token."""
    import base64
    import hashlib
    import hmac
    import time
    issuer = Issuer("RS256", "k1")
    (tmp_path / "keys.json").write_text(key_set(issuer))
    gate = proxy(identity={"jwt": [{"issuer": ISSUER, "audience": "crm-portal", "algorithms": ["RS256"], "jwks_file": str(tmp_path / "keys.json")}]})

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    claims = {"iss": ISSUER, "aud": "crm-portal", "sub": user, "exp": int(time.time()) + 600, "user_type": "staff"}
    text = part({"alg": "HS256", "typ": "JWT", "kid": "k1"}) + b"." + part(claims)
    forged = text + b"." + base64.urlsafe_b64encode(hmac.new(issuer.public_pem(), text, hashlib.sha256).digest()).rstrip(b"=")
    assert gate.call("GET", CASES, {"Authorization": "Bearer " + forged.decode()}).status == 401
    assert gate.call("GET", CASES + "/$count", issuer.auth(user)).status == 200


class KeyServer:
    """Serves a key set and counts who asks."""

    def __init__(self, text):
        self.text, self.asked, self.status = text, 0, 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                body = outer.text.encode()
                self.send_response(outer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/jwks"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def key_server():
    server = KeyServer("{}")
    yield server
    server.stop()


def test_a_key_set_behind_a_url_is_fetched_and_rotated(proxy, crm, key_server, user):
    old, new = Issuer("RS256", "2026-10"), Issuer("RS256", "2026-11")
    key_server.text = key_set(old)
    gate = proxy(identity=identity(jwks_url=key_server.url, jwks_min_interval="100ms"))
    eventually(lambda: gate.call("GET", CASES + "/$count", old.auth(user)).status == 200, 10, "the set was fetched")
    key_server.text = key_set(old, new)
    # A token of a key that is not known yet asks for a refresh.
    eventually(lambda: gate.call("GET", CASES + "/$count", new.auth(user)).status == 200, 10, "the new key was fetched")
    assert gate.call("GET", CASES + "/$count", old.auth(user)).status == 200


def test_unknown_keys_do_not_make_a_storm(proxy, crm, key_server, user):
    issuer = Issuer("ES256", "known")
    key_server.text = key_set(issuer)
    gate = proxy(identity=identity(jwks_url=key_server.url, jwks_min_interval="60s"))
    eventually(lambda: gate.call("GET", CASES + "/$count", issuer.auth(user)).status == 200, 10, "the set was fetched")
    asked = key_server.asked
    for number in range(30):
        assert gate.call("GET", CASES, Issuer("ES256", f"unknown{number}").auth(user)).status == 401
    assert key_server.asked <= asked + 1


def test_a_key_server_that_fails_leaves_the_known_keys(proxy, crm, key_server, user):
    issuer = Issuer("ES256", "known")
    key_server.text = key_set(issuer)
    gate = proxy(identity=identity(jwks_url=key_server.url, jwks_min_interval="100ms", jwks_refresh="1s"))
    eventually(lambda: gate.call("GET", CASES + "/$count", issuer.auth(user)).status == 200, 10, "the set was fetched")
    asked = key_server.asked
    key_server.status, key_server.text = 500, "oops"
    eventually(lambda: key_server.asked > asked, 10, "a refresh was tried")
    assert gate.call("GET", CASES + "/$count", issuer.auth(user + "2")).status == 200


def test_an_application_that_calls_for_itself_is_who_the_directory_says(proxy, crm, tmp_path, user):
    (tmp_path / "users.csv").write_text(f"user,organization,license,user_type\n{user},Acme,customer portal on-site,portal\n")
    gate = proxy(identity={"jwt": [{"issuer": ISSUER, "algorithms": ["HS256"], "secret_file": "hs256.key", "claims": {"user": "client_id"}}]},
                 licensing={"directory_file": str(tmp_path / "users.csv")})
    nobody = {"sub": None, "user_type": None, "licenses": ()}
    client = bearer("", **nobody, client_id=user)
    assert gate.call("GET", CASES + "/$count", client).status == 200
    assert gate.usage(client)["user"] == user and gate.used(client) == 1
    assert gate.call("GET", CASES + "/$count", bearer("", **nobody, client_id=user + "-unlisted")).status == 403
    assert gate.call("GET", CASES + "/$count", bearer("", **nobody)).status == 401
