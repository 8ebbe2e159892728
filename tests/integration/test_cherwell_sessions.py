"""Cherwell's opaque tokens: whose they are and of which site is learned from the reply that hands them out, and holds on every
proxy of the store until log-out or expiry. A token after log-out, of another site, or made up is nobody's."""
import json
import re

import pytest

from cherwell import API, INCIDENT, Caller, ask_token, settings
from harness import bearer, eventually
from http1 import Client


@pytest.fixture
def pair(proxy, tmp_path):
    made = settings(tmp_path, users="user,organization,license,user_type\nAnn Lee,Acme,,\n", recheck="200ms")
    return proxy(name="one", **made), proxy(name="two", **made)


def test_who_got_a_token_is_the_user_on_every_proxy(pair, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    record = caller.create()
    for gate in (one, two, one):
        reply = caller.call("GET", f"/getbusinessobject/busobid/{INCIDENT}/busobrecid/{record}", gate=gate)
        assert reply.status == 200 and reply.get("X-Standin-User") == f"{user}@it", reply
    assert one.used(caller.auth) == 3
    assert {gate.usage(caller.auth)["user"] for gate in pair} == {user.lower()}, "one user to both"


def test_a_log_in_that_failed_and_a_token_that_was_made_up_are_nobody(pair, crm, user):
    one, _ = pair
    assert ask_token(one, "IT", username=user, password="wrong").status == 400
    crm.reset()
    for token in ("made-up", bearer(user)["Authorization"][7:], "refresh x"):
        reply = one.call("GET", API + "/getbusinessobject/busobid/a/busobrecid/b", {"Authorization": "Bearer " + token})
        assert reply.status == 401 and reply.json()["reason"] == "token_invalid", reply
    assert crm.targets() == []


@pytest.mark.parametrize("grant,status", [("refused", 400), ("broken", 500), ("nameless", 200), ("tokenless", 200)])
def test_after_a_reply_that_is_no_log_in_the_caller_is_nobody(pair, redis, crm, user, grant, status):
    reply = ask_token(pair[0], "IT", username=user, headers={"X-Standin-Grant": grant})
    assert reply.status == status, reply
    told = reply.json()
    with Client(crm.port) as client:
        if "access_token" in told:
            alive = client.request("GET", API + "/serviceinfo", {"Authorization": "Bearer " + told["access_token"]})
            assert alive.status == 200, "it is no log-in by the reply alone: the CRM would take the token"
    crm.reset()
    for gate in pair:
        assert gate.call("GET", API + "/serviceinfo").status == 401, "without a token"
        for token in {told.get("access_token", "null"), told["refresh_token"], "null", "undefined"}:
            refused = gate.call("GET", API + "/serviceinfo", {"Authorization": "Bearer " + token})
            assert refused.status == 401 and refused.json()["reason"] == "token_invalid", refused
        assert ask_token(gate, "IT", grant_type="refresh_token", refresh_token=told["refresh_token"]).status == 401
    assert crm.targets() == [], "nothing of it reached the CRM"
    keys = [key for key in redis.command_line("KEYS", "l:*").splitlines() if key]
    assert not any(user.lower() in redis.command_line("GET", key) for key in keys), "and nothing is remembered of it"
    assert Caller(pair[0], user, "IT").call("GET", "/serviceinfo", gate=pair[1]).status == 200, "until he logs in"


def test_a_log_in_that_failed_ends_nobodys_session(pair, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    for headers in ({}, {"X-Standin-Grant": "tokenless"}):
        for gate in pair:
            ask_token(gate, "IT", username=user, password="wrong", headers={**caller.auth, **headers})
    assert caller.call("GET", "/serviceinfo", gate=two).get("X-Standin-User") == f"{user}@it"
    kept = caller.refresh_token
    caller.refresh_token = "refresh-made-up"
    assert caller.refresh().status == 401
    assert caller.call("GET", "/serviceinfo").status == 200
    caller.refresh_token = kept
    assert caller.refresh(gate=two).status == 200


def test_a_refresh_token_is_no_access_token(pair, crm, user):
    caller = Caller(pair[0], user, "IT")
    assert pair[0].call("GET", API + "/getbusinessobject/busobid/a/busobrecid/b",
                        {"Authorization": "Bearer " + caller.refresh_token}).status == 401


def test_a_refresh_goes_on_as_the_same_user_of_the_same_site(pair, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    record, before, refresh = caller.create(), caller.token, caller.refresh_token
    caller.take(caller.refresh(gate=two))
    assert caller.token != before
    for gate in pair:
        reply = caller.call("GET", f"/getbusinessobject/busobid/{INCIDENT}/busobrecid/{record}", gate=gate)
        assert reply.status == 200 and reply.get("X-Standin-User") == f"{user}@it"
    assert one.used(caller.auth) == 2, "on the account that it was before"
    caller.refresh_token = refresh
    crm.reset()
    assert caller.refresh(gate=two).status == 401, "it was used up"
    assert crm.targets() == []


def test_a_token_replayed_after_log_out_is_nobody_and_so_are_its_other_names(pair, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    record, first = caller.create(), caller.auth
    caller.take(caller.refresh())
    assert caller.call("GET", f"/getbusinessobject/busobid/{INCIDENT}/busobrecid/{record}", gate=two).status == 200
    assert caller.logout().status == 200
    view = f"{API}/getbusinessobject/busobid/{INCIDENT}/busobrecid/{record}"
    crm.reset()
    for auth in (caller.auth, first):
        assert one.call("GET", view, auth).json()["reason"] == "token_invalid"
        eventually(lambda: two.call("GET", view, auth).get("Content-Type") == "application/problem+json", 5, "the other proxy knows")
    assert caller.refresh().status == 401
    assert [target for target in crm.targets() if "token" in target] == []


def test_a_token_is_of_one_site(pair, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    other = Caller(one, user, "HR")
    crm.reset()
    for path in ("/CherwellPortal/HR/Command/Queries.GoToRecord?BusObID=" + INCIDENT, API + "/getbusinessobject/busobid/a/busobrecid/b?site_name=hr"):
        for gate in pair:
            reply = gate.call("GET", path, caller.auth)
            assert reply.status == 401 and reply.json()["reason"] == "token_invalid", reply
            assert gate.call("GET", path, other.auth).status == 404, "his own"
    assert caller.refresh("HR").status == 401
    assert caller.refresh("HR", gate=two).status == 401
    assert caller.refresh("it").status == 200
    assert one.call("GET", API + "/serviceinfo?site_name=it&site_name=hr", other.auth).status == 400


def test_tokens_that_are_swapped_between_sites_are_nobody_also_after_a_refresh_and_a_one_step(pair, crm, user):
    one, two = pair
    it, hr = Caller(one, user, "IT"), Caller(two, user, "HR")
    for renew in (lambda: None, lambda: [caller.take(caller.refresh()) for caller in (it, hr)],
                  lambda: [setattr(caller, "token", caller.run("944ab", headers={"X-Standin-New-Token": "1"}).json()["newAccessToken"])
                           for caller in (it, hr)]):
        renew()
        crm.reset()
        for caller, site in ((it, "hr"), (hr, "it")):
            for gate in pair:
                refused = gate.call("GET", f"{API}/serviceinfo?site_name={site}", caller.auth)
                assert refused.status == 401 and refused.json()["reason"] == "token_invalid", refused
        assert crm.targets() == []
        for caller, site in ((it, "it"), (hr, "hr")):
            for gate in pair:
                reply = gate.call("GET", f"{API}/serviceinfo?site_name={site}", caller.auth)
                assert reply.status == 200 and reply.get("X-Standin-User") == f"{user}@{site}", reply


def test_the_site_is_the_one_of_the_address_that_was_sent_and_of_the_one_that_is_asked_for(proxy, tmp_path, crm, user):
    gate = proxy(routes=[{"path_prefix": "/CherwellPortal/HR/rest", "upstream": "crm", "rewrite": {"replace_prefix": "/CherwellAPI"}},
                         {"path_prefix": "/desk", "upstream": "crm", "rewrite": {"replace_prefix": "/CherwellPortal/IT"}},
                         {"path_prefix": "/CherwellPortal/HR/swap", "upstream": "crm", "rewrite": {"replace_prefix": "/CherwellPortal/IT"}},
                         {"path_prefix": "/", "upstream": "crm"}], **settings(tmp_path))
    it, hr = Caller(gate, user, "IT"), Caller(gate, user, "HR")
    crm.reset()
    for path, theirs, other in (("/CherwellPortal/HR/rest/api/V1/serviceinfo", hr, it),
                                ("/desk/Command/Queries.GoToRecord?BusObID=" + INCIDENT, it, hr)):
        refused = gate.call("GET", path, other.auth)
        assert refused.status == 401 and refused.json()["reason"] == "token_invalid", (path, refused)
        assert crm.counts()["requests"] == 0
        assert gate.call("GET", path, theirs.auth).status in (200, 404), path
        crm.reset()
    for caller in (it, hr):
        assert gate.call("GET", "/CherwellPortal/HR/swap/Command/Queries.GoToRecord?BusObID=" + INCIDENT, caller.auth).status == 400, "two sites"
        assert gate.call("GET", "/CherwellPortal/HR/rest/api/V1/serviceinfo?site_name=it", caller.auth).status == 400


def test_a_new_token_of_a_one_step_is_the_same_session(pair, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    reply = caller.run("944ab", caller.create(), headers={"X-Standin-New-Token": "1"})
    assert reply.status == 200 and reply.json()["hasNewAccessToken"]
    caller.token = reply.json()["newAccessToken"]
    assert caller.call("GET", "/serviceinfo", gate=two).get("X-Standin-User") == f"{user}@it"
    assert caller.logout().status == 200
    assert caller.call("GET", "/serviceinfo").status == 401


def test_a_token_ends_when_it_expires(pair, crm, user):
    one, _ = pair
    caller = Caller(one, user, "IT", headers={"X-Standin-Lifetime": "1"})
    assert caller.call("GET", "/serviceinfo").status == 200
    eventually(lambda: caller.call("GET", "/serviceinfo").status == 401, 5, "it has expired")
    caller.take(caller.refresh())
    assert caller.call("GET", "/serviceinfo").status == 200


def test_a_request_for_a_token_that_can_be_read_in_two_ways_is_refused(pair, crm, user):
    one, _ = pair
    for more in ({"query": "&site_name=IT&Site_Name=HR"}, {"site": "IT", "site_name": "HR"}, {"grant_type": "refresh_token"}, {"site": "a\0b"},
                 {"query": "&grant_type=refresh_token"}):
        assert ask_token(one, **{"username": user, **more}).status == 400, more
    assert crm.targets() == []


def test_raw_tokens_are_nowhere_but_at_the_crm(pair, redis, crm, user):
    one, two = pair
    caller = Caller(one, user, "IT")
    caller.take(caller.refresh())
    assert caller.call("GET", "/serviceinfo", gate=two).status == 200
    keys = [key for key in redis.command_line("KEYS", "l:*").splitlines() if key]
    texts = keys + [redis.command_line("GET", key) for key in keys]
    assert any(user.lower() in text for text in texts)
    for gate in pair:
        texts += [gate.log(), json.dumps(gate.access_lines())]
    assert not any(re.search(r"access-[0-9A-F]{16}|refresh-[0-9A-F]{16}", text) for text in texts)


def test_json_web_tokens_may_stand_beside_them(proxy, tmp_path, crm, user):
    made = settings(tmp_path)
    del made["identity"]["jwt"]
    one = proxy(**made)
    caller = Caller(one, user)
    assert caller.call("GET", "/serviceinfo").status == 200
    assert one.usage(bearer(user + "-jwt"))["user"] == user + "-jwt"
