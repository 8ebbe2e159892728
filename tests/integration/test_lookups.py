"""Tokens and sessions that only somebody else can tell the owner of: an authorization server (RFC 7662), or the CRM. Each is asked
about once, by all workers together; an answer is believed for its time, and no answer is 503, never a guess."""
import threading
import time

import pytest

from harness import PATIENCE, Standin, bearer, eventually
from http1 import Client
from requests_crm import CASES
from test_sessions import cookie_of, holding, log_in

OPEN = {"system": "none", "main_products": None, "main_product_users": None}


def opaque(text, scheme="Bearer"):
    return {"Authorization": f"{scheme} {text}"}


def questions(server):
    return sum(target.endswith("/introspect") or "CurrentUser" in target or "UsrWhoAmI" in target for target in server.targets())


@pytest.fixture
def idp(start, tmp_path):
    """A server that tells whose a credential is, of this test's own."""
    return start(Standin(str(tmp_path), "idp"))


@pytest.fixture
def introspecting(proxy, tmp_path, idp):
    def make(name="tollgate", **settings):
        (tmp_path / "client.secret").write_text("secret\n")
        settings = {"url": idp.url + "/introspect", "client_id": "tollgate", "client_secret_file": str(tmp_path / "client.secret"),
                    "timeout": f"{2000 * PATIENCE}ms", **settings}
        return proxy(name=name, identity={"introspection": settings}, licensing=OPEN)

    return make


@pytest.mark.parametrize("how", ["basic", "form"])
def test_an_opaque_token_is_asked_about_once(introspecting, idp, crm, user, how):
    gate = introspecting(client_auth=how, audience=["crm-portal"])
    for _ in range(5):
        assert gate.call("GET", CASES, opaque("opaque-" + user)).status == 200
    assert questions(idp) == 1
    assert gate.used(opaque("opaque-" + user)) == 5
    assert gate.used(bearer(user)) == 5, "tokens of identity.jwt serve beside it, unasked, for the same user"
    assert questions(idp) == 1
    line = eventually(lambda: next((line for line in gate.access_lines() if line["status"] == 200), None), 5, "the log")
    assert (line["user"], line["organization"]) == (user, "Best Ltd")
    assert gate.metric("tollgate_lookups_total") == 1
    assert "opaque-" not in gate.log()


def test_nobody_is_asked_about_a_jwt_that_is_forged(introspecting, idp, crm, user):
    gate = introspecting()
    assert gate.call("GET", CASES, bearer(user, secret="another-secret-0123456789abcdef-0123")).status == 401
    assert questions(idp) == 0


def test_a_token_of_nobody_is_refused_and_remembered_for_a_while(introspecting, idp, crm):
    gate = introspecting(negative_age="1s")
    for _ in range(5):
        refused = gate.call("GET", CASES, opaque("made-up"))
        assert (refused.status, refused.json()["reason"]) == (401, "token_invalid")
    assert questions(idp) == 1
    time.sleep(1.1)
    assert gate.call("GET", CASES, opaque("made-up")).status == 401
    assert questions(idp) == 2
    assert not crm.targets()
    assert gate.metric("tollgate_lookup_unknown_total") == 2


def test_what_was_answered_holds_no_longer_than_the_token_nor_than_max_age(introspecting, idp, crm, user):
    gate = introspecting()
    assert gate.call("GET", CASES, opaque("short-" + user)).status == 200
    time.sleep(2.1)
    assert gate.call("GET", CASES, opaque("short-" + user)).status == 200, "asked again: the server says two seconds more"
    assert questions(idp) == 2
    brief = introspecting(name="brief", max_age="1s")
    for _ in range(3):
        assert brief.call("GET", CASES, opaque("opaque-" + user)).status == 200
    assert questions(idp) == 3
    time.sleep(1.1)
    assert brief.call("GET", CASES, opaque("opaque-" + user)).status == 200
    assert questions(idp) == 4


def test_calls_that_come_together_are_one_question(introspecting, idp, crm, user):
    gate = introspecting()
    idp.settings(latency_ms=300)
    statuses = []

    def one():
        statuses.append(gate.call("GET", CASES, opaque("opaque-" + user)).status)

    threads = [threading.Thread(target=one) for _ in range(30)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    assert gate.call("GET", CASES, bearer(user + "-other")).status == 200
    assert time.monotonic() - begun < 0.25 * PATIENCE, "no worker waits"
    for thread in threads:
        thread.join()
    assert statuses == [200] * 30
    assert questions(idp) == 1


@pytest.mark.parametrize("fault", ["stall", "close_before_reply", "garbage", "500", "gone"])
def test_without_an_answer_nobody_is_let_through_and_who_is_known_goes_on(introspecting, idp, crm, user, fault):
    gate = introspecting(timeout="500ms")
    assert gate.call("GET", CASES, opaque("opaque-" + user)).status == 200
    if fault == "gone":
        idp.stop()
    elif fault == "500":
        gate.write_config(identity={"introspection": {"url": idp.url + "/status/500"}})
        gate.reload()
        eventually(lambda: "configuration reloaded" in gate.log(), 10, "the reload")
    else:
        idp.settings(fault=fault)
    crm.reset()
    begun = time.monotonic()
    refused = gate.call("GET", CASES, opaque("opaque-new-" + user))
    assert (refused.status, refused.json()["reason"], refused.get("Retry-After")) == (503, "identity_unavailable", "1"), refused
    assert time.monotonic() - begun < 1.5 * PATIENCE
    assert not crm.targets()
    if fault != "500":  # another address is another question
        assert gate.call("GET", CASES, opaque("opaque-" + user)).status == 200
    assert gate.call("GET", CASES, bearer(user)).status == 200
    assert gate.metric("tollgate_lookup_failures_total") >= 1
    eventually(lambda: "identity.introspection: " in gate.log(), 5, "the log")
    assert "opaque-" not in gate.log()
    if fault in ("stall", "close_before_reply", "garbage"):
        idp.settings(fault="")
        eventually(lambda: gate.call("GET", CASES, opaque("opaque-new-" + user)).status == 200, 5, "a failure is not remembered")


def test_a_page_in_place_of_an_answer_settles_nothing(introspecting, idp, crm, user):
    gate = introspecting()
    assert gate.call("GET", CASES, opaque("text-" + user)).status == 503
    assert gate.call("GET", CASES, opaque("text-" + user)).status == 503
    assert questions(idp) == 2


def test_a_client_that_goes_away_while_somebody_is_asked_leaves_nothing_behind(introspecting, idp, crm, user):
    gate = introspecting()
    idp.settings(latency_ms=300)
    for _ in range(5):
        with Client(gate.port) as client:
            client.sock.sendall(f"GET {CASES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer opaque-{user}\r\n\r\n".encode())
    eventually(lambda: questions(idp) >= 1, 5, "the question")
    assert gate.call("GET", CASES, opaque("opaque-" + user)).status == 200
    assert questions(idp) == 1


def test_an_answer_outlives_a_reload_and_the_directory_is_read_anew(introspecting, idp, crm, tmp_path, user):
    gate = introspecting()
    assert gate.call("GET", CASES, opaque("opaque-" + user)).status == 200
    (tmp_path / "users.csv").write_text(f"user,organization\n{user},Acme\n")
    gate.write_config(licensing={"directory_file": str(tmp_path / "users.csv")})
    gate.reload()
    eventually(lambda: "configuration reloaded" in gate.log(), 10, "the reload")

    def organizations():  # the lines of two workers are in no order, and each takes the new configuration when it can
        assert gate.call("GET", CASES, opaque("opaque-" + user)).status == 200
        return {line["organization"] for line in gate.access_lines()}

    eventually(lambda: organizations() == {"Best Ltd", "Acme"}, 10, "the directory is read anew")
    assert questions(idp) == 1


def test_zohos_own_tokens_are_its_users(proxy, crm, user):
    gate = proxy(identity={"jwt": None, "current_user": {"url": crm.url + "/crm/v8/users?type=CurrentUser"}}, licensing=OPEN,
                 catalogue={"dialects": ["zoho"]})
    token = f"1000.{user}.abc"
    for scheme in ("Zoho-oauthtoken", "Bearer", "zoho-OAUTHTOKEN"):
        assert gate.call("GET", "/crm/v8/Leads", opaque(token, scheme)).status in (200, 204)
    assert questions(crm) == 1
    assert gate.used(opaque(token, "Zoho-oauthtoken")) == 3
    for _ in range(2):
        assert gate.call("GET", "/crm/v8/Leads", opaque("2000.x.y", "Zoho-oauthtoken")).status == 401
    assert questions(crm) == 2
    missing = gate.call("GET", "/crm/v8/Leads")
    assert missing.json()["reason"] == "token_missing"
    twice = gate.call("GET", "/crm/v8/Leads", [*opaque(token).items(), ("Authorization", "Zoho-oauthtoken 1000.other.abc")])
    assert twice.status in (400, 401)


@pytest.fixture
def asking(proxy, tmp_path, crm):
    def make(name="tollgate", **lookup):
        (tmp_path / "sessions.key").write_text("session-secret-0123456789abcdef-0123456789abcdef")
        lookup = {"url": crm.url + "/0/rest/UsrWhoAmI/Get", "timeout": f"{2000 * PATIENCE}ms", "negative_age": "500ms", **lookup}
        return proxy(name=name, licensing=OPEN, identity={"jwt": None, "sessions": {
            "kinds": "creatio", "secret_file": str(tmp_path / "sessions.key"), "recheck": "200ms", "lookup": lookup}})

    return make


def session_elsewhere(crm, user):
    """A session that this proxy has not seen begin."""
    with Client(crm.port) as client:
        return cookie_of(client.request("POST", "/ServiceModel/AuthService.svc/Login", {"Content-Type": "application/json"},
                                        f'{{"UserName":"{user}","UserPassword":"secret"}}'.encode()))


@pytest.mark.parametrize("service_account", [False, True])
def test_a_session_that_was_not_seen_to_begin_is_asked_about_once_by_all_proxies(asking, crm, tmp_path, user, service_account):
    user = "Portal/" + user
    lookup = {}
    if service_account:
        (tmp_path / "robot").write_text("Basic cm9ib3Q6c2VjcmV0\n")
        lookup = {"url": crm.url + "/0/rest/UsrWhoAmI/Find", "authorization_file": str(tmp_path / "robot")}
    one, two = asking(**lookup), asking(name="two", **lookup)
    cookie = session_elsewhere(crm, user)
    for gate in (one, one, two, one, two):
        answer = gate.call("GET", CASES, holding(cookie))
        assert answer.status == 200 and answer.get("X-Standin-User") == user, answer
        time.sleep(0.05)  # the store hears of it behind the first call's back
    assert questions(crm) == 1
    assert one.used(holding(cookie)) == 3, "what this proxy let through"
    for _ in range(3):
        assert one.call("GET", CASES, holding("0123456789ABCDEF")).status == 401
    assert questions(crm) == 2


def test_a_session_that_has_ended_is_not_revived_by_an_old_answer(asking, crm, user):
    gate = asking()
    cookie = session_elsewhere(crm, "Portal/" + user)
    assert gate.call("GET", CASES, holding(cookie)).status == 200
    assert gate.call("POST", "/0/rest/MainMenuService/Logout", holding(cookie), b"").status == 200
    crm.reset()
    assert gate.call("GET", CASES, holding(cookie)).status == 401
    assert [target for target in crm.targets() if "odata" in target] == []


def test_log_ins_that_are_seen_need_no_question(asking, crm, user):
    gate = asking()
    cookie = cookie_of(log_in(gate, "Portal/" + user))
    assert gate.call("GET", CASES, holding(cookie)).status == 200
    assert questions(crm) == 0
