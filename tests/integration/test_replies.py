"""Every refusal: its status, its code, its fields, its body."""
import os
import re

import pytest

from harness import AUDIENCE, PARTNER, ROOT, SELF_SERVICE, bearer
from requests_crm import CASES, JSON, json_batch

ONE_CASE = CASES + "(00000029-57a0-4d1c-9c0d-000000000029)"


def check_problem(reply, status, reason):
    assert reply.status == status, reply
    assert reply.get("Content-Type") == "application/problem+json"
    assert reply.get("Cache-Control") == "no-store"
    body = reply.json()
    assert body["status"] == status and body["reason"] == reason
    assert body["title"] and body["detail"]
    assert body["instance"] == reply.get("X-Request-Id")
    page = body["type"].rsplit("/", 1)[1]
    assert page == reason.replace("_", "-")
    assert os.path.exists(os.path.join(ROOT, "docs/problems", page + ".md"))
    return body


def test_without_a_token_there_is_a_challenge_without_an_error(gate, crm):
    reply = gate.call("GET", CASES)
    check_problem(reply, 401, "token_missing")
    challenge = reply.get("WWW-Authenticate")
    assert challenge.startswith("Bearer") and "error" not in challenge


@pytest.mark.parametrize("value", ["Bearer not-a-token", "Bearer a.b.c", "Bearer " + "x" * 9000])
def test_a_token_that_is_none_is_refused(gate, crm, value):
    reply = gate.call("GET", CASES, {"Authorization": value})
    check_problem(reply, 401, "token_invalid")
    assert 'error="invalid_token"' in reply.get("WWW-Authenticate")
    assert crm.counts()["requests"] == 0


@pytest.mark.parametrize("claims", [dict(secret="another-secret-another-secret-another-secret"), dict(iss="https://evil.test"),
                                    dict(aud="somewhere-else"), dict(sub=None), dict(exp=None), dict(nbf=4_000_000_000)],
                         ids=["signature", "issuer", "audience", "no-user", "no-expiry", "not-yet"])
def test_a_token_with_a_wrong_claim_is_refused(gate, crm, user, claims):
    check_problem(gate.call("GET", CASES, bearer(user, **claims)), 401, "token_invalid")


def test_an_unsigned_token_is_refused(gate, crm, user):
    import base64
    import json
    import time

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"iss": "https://idp.test", "aud": AUDIENCE, "sub": user, "exp": int(time.time()) + 600}
    for name in ("none", "None", "NONE"):
        forged = part({"alg": name, "typ": "JWT"}) + "." + part(claims) + "."
        check_problem(gate.call("GET", CASES, {"Authorization": "Bearer " + forged}), 401, "token_invalid")


def test_an_expired_token_is_told_apart(gate, crm, user):
    reply = gate.call("GET", CASES, bearer(user, lifetime=-120))
    check_problem(reply, 401, "token_expired")
    assert 'error="invalid_token"' in reply.get("WWW-Authenticate")


@pytest.mark.parametrize("method, target, licenses, reason", [
    ("GET", CASES, (), "license_missing"),
    ("GET", CASES, ("some other product",), "license_missing"),
    ("GET", "/0/odata/Lead", (PARTNER,), "product_unavailable"),  # not sold with service enterprise
    ("GET", "/0/odata/Contract", (SELF_SERVICE,), "section_not_licensed"),
    ("GET", "/0/odata/Account", None, "section_not_licensed"),
    ("DELETE", ONE_CASE, None, "operation_not_licensed"),
    ("POST", "/0/odata/KnowledgeBase", None, "operation_not_licensed"),
    ("GET", "/0/odata/UsrRealty", None, "custom_section_limit"),
    ("GET", ONE_CASE + "/Account", None, "section_not_licensed"),
])
def test_the_licence_says_no(gate, crm, user, method, target, licenses, reason):
    headers = bearer(user) if licenses is None else bearer(user, licenses=licenses)
    body = b"{}" if method == "POST" else None
    check_problem(gate.call(method, target, {**headers, **JSON}, body), 403, reason)
    assert crm.counts()["requests"] == 0


def test_data_service_delete_is_denied_by_its_body(gate, crm, auth):
    reply = gate.call("POST", "/0/DataService/json/SyncReply/DeleteQuery", {**auth, **JSON}, b'{"rootSchemaName":"Case"}')
    check_problem(reply, 403, "operation_not_licensed")


def test_a_method_override_is_judged_as_what_it_becomes(gate, crm, auth):
    reply = gate.call("POST", ONE_CASE, {**auth, **JSON, "X-HTTP-Method": "DELETE"}, b"")
    assert reply.status in (400, 403)
    assert "DELETE Case" not in crm.counts()["operations"]


def test_odata_callers_also_get_the_odata_error_object(gate, crm, auth):
    plain = gate.call("DELETE", ONE_CASE, {**auth, "Accept": "application/json"})
    assert "error" not in plain.json()
    for accept in ("application/json;odata.metadata=minimal", "application/json;odata=verbose"):
        body = check_problem(gate.call("DELETE", ONE_CASE, {**auth, "Accept": accept}), 403, "operation_not_licensed")
        assert body["error"]["code"] == "operation_not_licensed" and body["error"]["message"]


def test_no_route_is_404(proxy, crm, auth):
    gate = proxy(routes=[{"path_prefix": "/0", "upstream": "crm"}])
    check_problem(gate.call("GET", "/elsewhere", auth), 404, "not_found")


def test_an_over_long_target_is_414(gate, crm, auth):
    check_problem(gate.call("GET", "/0/odata/Case?" + "x" * 20_000, auth), 414, "uri_too_long")


def test_an_over_large_header_is_431(gate, crm, auth):
    check_problem(gate.call("GET", CASES, {**auth, "X-Large": "x" * 70_000}), 431, "header_too_large")
    many = [("X-Many", str(n)) for n in range(200)]
    check_problem(gate.call("GET", CASES, list(auth.items()) + many), 431, "header_too_large")


def test_a_body_too_large_to_inspect_is_413(proxy, crm, auth):
    gate = proxy(catalogue={"max_body": "64KiB"})
    headers, body = json_batch([("POST", "Case", {"Subject": "x" * 80_000})])
    check_problem(gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body), 413, "body_uninspectable")
    check_problem(gate.call("POST", "/0/odata/$batch", {**auth, **headers}, chunked=[body[:50_000], body[50_000:]]), 413, "body_uninspectable")
    assert crm.counts()["requests"] == 0


def test_the_reply_to_head_has_no_body(gate, crm):
    with gate.client() as client:
        reply = client.request("HEAD", CASES)
        assert reply.status == 401 and int(reply.get("Content-Length")) > 0
        assert client.request("GET", "/echo").status == 200  # the connection is still in step


def test_a_well_formed_request_id_is_kept_and_others_are_replaced(gate, crm):
    kept = gate.call("GET", "/echo", {"X-Request-Id": "client-id.0123"})
    assert kept.get("X-Request-Id") == "client-id.0123"
    assert ["X-Request-Id", "client-id.0123"] in kept.json()["headers"]
    for bad in ("short", "x" * 129, "with space", "semi;colon123"):
        replaced = gate.call("GET", "/echo", {"X-Request-Id": bad})
        assert replaced.get("X-Request-Id") != bad
        assert re.fullmatch(r"[A-Za-z0-9._-]{8,128}", replaced.get("X-Request-Id"))


def test_every_reply_has_its_own_request_id(gate, crm):
    ids = {gate.call("GET", "/echo").get("X-Request-Id") for _ in range(10)}
    assert len(ids) == 10 and None not in ids


def test_the_trace_context_is_passed_on(gate, crm):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = dict(gate.call("GET", "/echo", {"traceparent": trace, "tracestate": "a=1"}).json()["headers"])
    assert headers["traceparent"].split("-")[1] == trace.split("-")[1]
    assert headers["tracestate"] == "a=1"


def test_the_upstream_s_own_refusals_pass_unchanged(gate, crm):
    for status in (400, 401, 403, 404, 409, 429, 500, 503):
        assert gate.call("GET", f"/status/{status}", bearer("staff-1", user_type="staff")).status == status


def test_tokens_come_from_a_cookie_when_configured(proxy, crm, user):
    headers = bearer(user)
    value = headers["Authorization"].split(" ", 1)[1]
    gate = proxy(identity={"sources": [{"cookie": "portal_token"}, {"header": "authorization"}]})
    assert gate.call("GET", CASES + "/$count", {"Cookie": f"a=1; portal_token={value}; b=2"}).status == 200
    assert gate.call("GET", CASES + "/$count", headers).status == 200
    assert gate.call("GET", CASES + "/$count", {"Cookie": "a=1"}).status == 401


def test_the_token_is_kept_from_the_upstream_when_configured(proxy, crm, auth):
    gate = proxy(identity={"forward_token": False}, routes=[{"path_prefix": "/", "upstream": "crm"}])
    seen = {name.lower() for name, _ in gate.call("GET", "/echo/x", auth).json()["headers"]}
    assert "authorization" not in seen
