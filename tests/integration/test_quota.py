"""What a caller's quota allows, costs and tells."""
import threading
import time

import pytest

from harness import Standin, bearer, eventually
from http1 import Client, render
from requests_crm import CASES, JSON, data_batch, json_batch, multipart_batch, select
from structured_fields import Token, parse_list


def read_many(client, headers, count, target=CASES + "/$count"):
    """Statuses of so many calls on one connection."""
    return [client.request("GET", target, headers).status for _ in range(count)]


def test_a_thousand_calls_pass_and_the_next_is_refused(gate, crm, auth):
    with gate.client() as client:
        assert read_many(client, auth, 1000) == [200] * 1000
        refused = client.request("GET", CASES, auth)
    assert refused.status == 429
    assert refused.json()["reason"] == "quota_exceeded"
    assert crm.counts()["operations"] == {"GET Case": 1000}
    wait = int(refused.get("Retry-After"))
    # The first call was made seconds ago and leaves 24 h after it; the window's granularity is a minute.
    assert 86_400 - 120 <= wait <= 86_400 + 125


def test_remaining_counts_down_and_the_fields_are_structured(gate, crm, auth):
    with gate.client() as client:
        for expected in (999, 998, 997):
            reply = client.request("GET", CASES + "?$top=1", auth)
            policy = parse_list(reply.get("RateLimit-Policy"))
            state = parse_list(reply.get("RateLimit"))
            assert ("daily", {"q": 1000, "w": 86400}) in policy
            assert [type(item) for item, _ in policy] == [str] and not isinstance(policy[0][0], Token)
            name, values = state[0]
            assert name == "daily" and values["r"] == expected
            assert isinstance(values["t"], int) and 0 < values["t"] <= 86_400 + 125


def test_a_refusal_names_policy_limit_use_and_wait(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "daily", "limit": 2, "window": "24h", "per": ["user"], "on": "licensed"}])
    with gate.client() as client:
        assert read_many(client, auth, 2) == [200, 200]
        refused = client.request("GET", CASES, auth)
    body = refused.json()
    assert refused.status == body["status"] == 429
    assert refused.get("Content-Type") == "application/problem+json"
    assert refused.get("Cache-Control") == "no-store"
    assert body["violated-policies"] == ["daily"]
    assert body["limit"] == 2 and body["used"] == 2
    assert body["retry_after"] == int(refused.get("Retry-After"))
    state = parse_list(refused.get("RateLimit"))[0]
    assert state[0] == "daily" and state[1]["r"] == 0


def test_after_exactly_retry_after_the_call_is_admitted(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "burst", "limit": 3, "window": "3s", "per": ["user"], "on": "licensed"}])
    with gate.client() as client:
        assert read_many(client, auth, 3) == [200] * 3
        refused = client.request("GET", CASES, auth)
        asked = time.monotonic()
        assert refused.status == 429
        wait = int(refused.get("Retry-After"))
        assert 1 <= wait <= 5
        time.sleep(max(0.0, asked + wait - time.monotonic()))
        assert client.request("GET", CASES + "/$count", auth).status == 200


def test_retry_after_is_not_a_second_too_late(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "burst", "limit": 1, "window": "4s", "per": ["user"], "on": "licensed"}])
    with gate.client() as client:
        assert client.request("GET", CASES, auth).status == 200
        admitted = time.monotonic()
        refused = client.request("GET", CASES, auth)
        # Window 4 s, its granularity and the guard below a second, rounding up to a whole second.
        assert 4 <= int(refused.get("Retry-After")) <= 6
        time.sleep(max(0.0, admitted + 3.5 - time.monotonic()))
        assert client.request("GET", CASES, auth).status == 429


@pytest.mark.parametrize("per", ["user", "organization"])
def test_a_refusal_names_both_limits_without_room_and_the_longer_wait(proxy, crm, user, per):
    gate = proxy(workers=1, quotas=[{"name": "short", "limit": 2, "window": "3s", "per": ["user"], "on": "licensed"},
                                    {"name": "long", "limit": 3, "window": "7s", "per": [per], "on": "licensed"}])
    auth = bearer(user, org=f"{user}-inc")
    headers, body = json_batch([("GET", "Case?$top=1")] * 2)
    with gate.client() as client:
        assert read_many(client, auth, 2) == [200, 200]
        first, again = (client.request("POST", "/0/odata/$batch", {**auth, **headers}, body) for _ in range(2))
        asked = time.monotonic()
        wait = int(again.get("Retry-After"))
        for refused in (first, again):
            assert refused.status == 429
            assert sorted(refused.json()["violated-policies"]) == ["long", "short"]
        assert 4 < wait <= 9  # the short one alone has room after 3 or 4
        time.sleep(max(0.0, asked + wait - time.monotonic()))
        assert client.request("POST", "/0/odata/$batch", {**auth, **headers}, body).status == 200


def test_a_batch_of_37_costs_37(gate, crm, auth):
    headers, body = json_batch([("GET", f"Case?$top=1&$skip={n}") for n in range(37)])
    reply = gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body)
    assert reply.status == 200 and len(reply.json()["responses"]) == 37
    assert parse_list(reply.get("RateLimit"))[0][1]["r"] == 963
    assert gate.used(auth) == 37
    assert crm.counts()["operations"]["GET Case"] == 37


def test_a_multipart_batch_costs_reads_and_changes(gate, crm, auth):
    headers, body = multipart_batch([("GET", "Case?$top=1")] * 3, [("POST", "Case", {"Subject": "x"}), ("POST", "Case", {"Subject": "y"})])
    reply = gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body)
    assert reply.status == 200, reply
    assert gate.used(auth) == 5
    operations = crm.counts()["operations"]
    assert operations["GET Case"] == 3 and operations["POST Case"] == 2


def test_a_data_service_batch_costs_its_items(gate, crm, auth):
    reply = gate.call("POST", "/0/DataService/json/SyncReply/BatchQuery", {**auth, **JSON},
                      data_batch(("SelectQuery", "Case"), ("InsertQuery", "Case"), ("UpdateQuery", "Case")))
    assert reply.status == 200, reply
    assert gate.used(auth) == 3


def test_a_batch_with_one_denied_part_costs_nothing_and_forwards_nothing(gate, crm, auth):
    headers, body = json_batch([("GET", "Case?$top=1")] * 5 + [("DELETE", "Case(00000029-57a0-4d1c-9c0d-000000000029)")])
    reply = gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body)
    assert reply.status == 403 and reply.json()["reason"] == "operation_not_licensed"
    assert crm.counts()["requests"] == 0
    assert gate.used(auth) == 0


def test_a_batch_that_does_not_fit_is_refused_whole(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "daily", "limit": 10, "window": "24h", "per": ["user"], "on": "licensed"}])
    headers, body = json_batch([("GET", "Case?$top=1")] * 4)
    answers = [gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body).status for _ in range(3)]
    assert answers == [200, 200, 429]
    assert gate.used(auth) == 8
    headers, body = json_batch([("GET", "Case?$top=1")] * 2)
    assert gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body).status == 200
    assert crm.counts()["operations"]["GET Case"] == 10


def test_a_batch_larger_than_the_limit_has_no_retry_after(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "daily", "limit": 10, "window": "24h", "per": ["user"], "on": "licensed"}])
    headers, body = json_batch([("GET", "Case?$top=1")] * 11)
    reply = gate.call("POST", "/0/odata/$batch", {**auth, **headers}, body)
    assert reply.status == 429 and reply.get("Retry-After") is None
    assert gate.used(auth) == 0


def test_denied_calls_cost_nothing(gate, crm, user, auth):
    delete = CASES + "(00000029-57a0-4d1c-9c0d-000000000029)"
    assert gate.call("DELETE", delete, auth).status == 403
    assert gate.call("GET", CASES).status == 401
    assert gate.call("GET", CASES, bearer(user, lifetime=-60)).status == 401
    assert gate.call("GET", "/0/odata/Order", auth).status == 403
    assert gate.used(auth) == 0
    assert crm.counts()["requests"] == 0


def test_unlicensed_objects_are_free(gate, crm, auth):
    assert gate.call("GET", "/0/odata/$metadata", auth).status == 200
    assert gate.call("GET", "/0/odata/City", auth).status == 200
    assert gate.used(auth) == 0


def test_refused_calls_do_not_push_the_window(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "burst", "limit": 1, "window": "2s", "per": ["user"], "on": "licensed"}])
    with gate.client() as client:
        assert client.request("GET", CASES, auth).status == 200
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if client.request("GET", CASES, auth).status == 200:
                return
            time.sleep(0.05)
    pytest.fail("hammering kept the window closed")


@pytest.mark.parametrize("proxies", [1, 2])
def test_no_more_than_the_limit_pass_however_many_ask_at_once(proxy, crm, auth, proxies):
    quotas = [{"name": "daily", "limit": 100, "window": "24h", "per": ["user"], "on": "licensed"}]
    gates = [proxy(name=f"tollgate{n}", quotas=quotas) for n in range(proxies)]
    passed, lock = [], threading.Lock()

    def hammer(gate):
        with Client(gate.port) as client:
            mine = read_many(client, auth, 25)
        with lock:
            passed.extend(mine)

    threads = [threading.Thread(target=hammer, args=(gates[n % proxies],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 200
    assert passed.count(200) == 100 and passed.count(429) == 100
    assert crm.counts()["operations"] == {"GET Case": 100}


def test_staff_is_proxied_without_quota(proxy, crm, user):
    gate = proxy(quotas=[{"name": "daily", "limit": 1, "window": "24h", "per": ["user"], "on": "licensed"}])
    staff = bearer(user, licenses=(), user_type="staff")
    with gate.client() as client:
        assert read_many(client, staff, 5, "/0/odata/Account/$count") == [200] * 5


def test_a_user_of_unknown_type_is_a_portal_user(gate, crm, user):
    headers = bearer(user, user_type=None)
    assert gate.call("GET", CASES + "/$count", headers).status == 200
    assert gate.used(headers) == 1


def test_an_organization_shares_its_rule(proxy, crm, user):
    gate = proxy(quotas=[{"name": "daily", "limit": 1000, "window": "24h", "per": ["user"], "on": "licensed"},
                         {"name": "company", "limit": 4, "window": "24h", "per": ["organization"], "on": "licensed"}])
    ann, bob = bearer(user + "-a", org=user), bearer(user + "-b", org=user)
    stranger = bearer(user + "-c", org=user + "-other")
    answers = [gate.call("GET", CASES + "/$count", who).status for who in (ann, bob, ann, bob, ann, bob)]
    assert answers == [200, 200, 200, 200, 429, 429]
    assert gate.call("GET", CASES + "/$count", stranger).status == 200
    # What the company's rule refused was not charged to the user's own either.
    assert gate.used(ann) == 2 and gate.used(bob) == 2


def test_tenants_do_not_share_users(proxy, crm, user):
    gate = proxy(quotas=[{"name": "daily", "limit": 1, "window": "24h", "per": ["user"], "on": "licensed"}])
    for tenant in ("north", "south"):
        headers = bearer(user, tenant=tenant)
        assert [gate.call("GET", CASES + "/$count", headers).status for _ in range(2)] == [200, 429]


def test_a_rule_on_all_counts_what_touches_no_licensed_object(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "everything", "limit": 2, "window": "24h", "per": ["user"], "on": "all"}])
    assert [gate.call("GET", "/0/odata/$metadata", auth).status for _ in range(3)] == [200, 200, 429]


def test_a_rule_per_object_and_operation_counts_apart(proxy, crm, auth):
    gate = proxy(quotas=[{"name": "fine", "limit": 1, "window": "24h", "per": ["user", "object", "operation"], "on": "licensed"}])
    with gate.client() as client:
        assert read_many(client, auth, 2) == [200, 429]
        assert client.request("POST", CASES, {**auth, **JSON}, b'{"Subject":"x"}').status == 201
        assert client.request("GET", "/0/odata/KnowledgeBase/$count", auth).status == 200


def test_an_override_raises_the_limit_of_one_user(proxy, crm, user):
    gate = proxy(quotas=[{"name": "daily", "limit": 1, "window": "24h", "per": ["user"], "on": "licensed", "overrides": {user: 3}}])
    headers = bearer(user)
    assert [gate.call("GET", CASES + "/$count", headers).status for _ in range(4)] == [200, 200, 200, 429]


def test_the_usage_page_tells_what_was_used_and_costs_nothing(gate, crm, user, auth):
    with gate.client() as client:
        read_many(client, auth, 5)
        client.request("POST", CASES, {**auth, **JSON}, b'{"Subject":"x"}')
        client.request("POST", "/0/DataService/json/SyncReply/SelectQuery", {**auth, **JSON}, select("KnowledgeBase"))
        for _ in range(3):
            reply = client.request("GET", "/.tollgate/usage", auth)
    usage = reply.json()
    assert usage["user"] == user
    limit = next(entry for entry in usage["limits"] if entry["name"] == "daily")
    assert (limit["limit"], limit["window"], limit["used"], limit["remaining"]) == (1000, 86400, 7, 993)
    assert limit["next_free"]["seconds"] > 86_000 and limit["next_free"]["calls"] >= 1
    objects = {(entry["object"], entry["operation"]): entry["calls"] for entry in usage["objects"]}
    assert objects == {("Case", "read"): 5, ("Case", "create"): 1, ("KnowledgeBase", "read"): 1}
    assert crm.counts()["requests"] == 7


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_the_usage_page_names_its_methods_to_who_uses_another(gate, crm, auth, method):
    reply = gate.call(method, "/.tollgate/usage", auth)
    assert (reply.status, reply.get("Allow"), reply.json()["reason"]) == (405, "GET, HEAD", "method_not_allowed")
    assert crm.counts()["requests"] == 0


def test_the_usage_page_needs_a_token(gate):
    assert gate.call("GET", "/.tollgate/usage").status == 401


def test_a_call_that_the_upstream_never_received_is_given_back(proxy, start, tmp_path, auth):
    crm = start(Standin(str(tmp_path), name="own"))
    gate = proxy(upstream=crm.url)
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    crm.stop()
    for _ in range(3):
        assert gate.call("GET", CASES + "/$count", auth).status == 502
    eventually(lambda: gate.used(auth) == 1, 5, "the three calls are given back")
    crm.start()
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    assert gate.used(auth) == 2


def test_a_call_that_failed_after_it_was_received_is_charged(gate, crm, auth):
    reply = gate.call("POST", CASES, {**auth, **JSON, "X-Standin-Fault": "close_before_reply"}, b'{"Subject":"x"}')
    assert reply.status == 502
    assert gate.used(auth) == 1
    assert crm.counts()["operations"] == {"POST Case": 1}  # and it was not sent twice


def test_later_chunks_of_one_upload_are_free(gate, crm, auth):
    target = "/0/rest/FileApiService/UploadFile?entitySchemaName=CaseFile&parentColumnName=Case&fileId=1"
    for offset in (0, 100, 200):
        reply = gate.call("POST", target, {**auth, "Content-Range": f"bytes {offset}-{offset + 99}/300"}, b"x" * 100)
        assert reply.status == 200, reply
    assert gate.used(auth) == 1


def test_legacy_fields_come_by_switch(proxy, crm, auth):
    gate = proxy(proxy={"legacy_rate_limit_headers": True})
    reply = gate.call("GET", CASES + "/$count", auth)
    assert reply.get("X-RateLimit-Limit") == "1000" and reply.get("X-RateLimit-Remaining") == "999"
    assert int(reply.get("X-RateLimit-Reset")) > 0
    gate = proxy(name="quiet", proxy={"rate_limit_headers": "never"})
    reply = gate.call("GET", CASES + "/$count", auth)
    assert reply.get("RateLimit") is None and reply.get("RateLimit-Policy") is None


def test_requests_in_one_burst_on_one_connection_are_all_counted(gate, crm, auth):
    with gate.client() as client:
        client.send(render("GET", CASES + "/$count", auth) * 20)
        assert [client.read().status for _ in range(20)] == [200] * 20
    assert gate.used(auth) == 20
