"""Sessions of the CRM's own log-in with forms: who logged in is who calls, on every proxy of the store, until he logs out.
A log-in that failed, a forged cookie, a session that has ended: none of them is anyone."""
import json
import re
import time

import pytest

from harness import PATIENCE, Redis, bearer, eventually
from requests_crm import CASES

LOGIN = "/ServiceModel/AuthService.svc/Login"
LOGOUT = "/0/rest/MainMenuService/Logout"
JSON = {"Content-Type": "application/json"}
SECRET = "session-secret-0123456789abcdef-0123456789abcdef"
USERS = "user,organization,license,user_type\nAnn Lee,Acme,customer portal on-site,portal\n"


def sessions(folder, **more):
    secret = folder / "sessions.key"
    secret.write_text(SECRET)
    users = folder / "users.csv"
    users.write_text(USERS)
    return {"identity": {"jwt": None, "sessions": {"kinds": "creatio", "secret_file": str(secret), **more}},
            "licensing": {"system": "none", "directory_file": str(users), "main_products": None, "main_product_users": None}}


def log_in(gate, user, password="secret", headers=()):
    """To the stand-in CRM users are portal users (SSP) when their names begin with Portal/."""
    body = json.dumps({"UserName": user, "UserPassword": password}).encode()
    return gate.call("POST", LOGIN, {**JSON, **dict(headers)}, body)


def cookie_of(reply):
    found = [re.match(r"\.ASPXAUTH=([^;]+)", value) for name, value in reply.headers if name.lower() == "set-cookie"]
    return next(match.group(1) for match in found if match)


def holding(cookie, **more):
    return {"Cookie": f".ASPXAUTH={cookie}; BPMCSRF=csrf", **more}


def cases(gate, cookie, **more):
    return gate.call("GET", CASES, holding(cookie, **more))


@pytest.fixture
def user(user):
    return "Portal/" + user


@pytest.fixture
def pair(proxy, tmp_path):
    """Two proxies of one portal."""
    settings = sessions(tmp_path, recheck="200ms")
    return proxy(name="one", **settings), proxy(name="two", **settings)


def test_who_logs_in_with_forms_is_the_user_on_every_proxy(pair, crm, user):
    one, two = pair
    assert cases(one, "0").status == 401
    reply = log_in(one, user)
    assert reply.status == 200 and reply.json()["Code"] == 0, reply
    cookie = cookie_of(reply)
    for gate in (one, two, one):
        answer = cases(gate, cookie)
        assert answer.status == 200, answer
        assert answer.get("X-Standin-User") == user
    assert one.used(holding(cookie)) == 2
    assert two.used(holding(cookie)) == 3, "both proxies count for one user"
    eventually(lambda: {line["user"] for line in two.access_lines() if line["status"] == 200} == {user.lower()}, 5, "the log names him")


def test_a_log_in_that_failed_is_nobody(pair, crm, user):
    one, two = pair
    reply = log_in(one, user, password="wrong")
    assert reply.status == 200 and reply.json()["Code"] == 1
    for gate in pair:
        for cookies in (f"UserName={user}; UserType=General", ".ASPXAUTH=made-up; UserType=General", "BPMLOADER=loader0123456789"):
            answer = gate.call("GET", CASES, {"Cookie": cookies})
            assert answer.status == 401, (cookies, answer)
            assert answer.json()["reason"] in ("token_missing", "token_invalid")
    assert [target for target in crm.targets() if "odata" in target] == []


def test_what_the_cookies_say_of_themselves_is_not_believed(pair, crm, user):
    one, _ = pair
    portal = cookie_of(log_in(one, user))
    answer = one.call("GET", CASES, {"Cookie": f".ASPXAUTH={portal}; UserType=General; UserName=83|117"})
    assert answer.status == 200
    assert one.used(holding(portal)) == 1, "still metered as the portal user he is"


def test_a_session_cookie_sent_twice_is_refused(pair, crm, user):
    one, _ = pair
    mine, other = cookie_of(log_in(one, user)), cookie_of(log_in(one, user + "-2"))
    for cookies in (f".ASPXAUTH={mine}; .ASPXAUTH={other}", f".ASPXAUTH={mine}; .aspxauth={other}"):
        answer = one.call("GET", CASES, {"Cookie": cookies})
        assert answer.status == 401 and "more than once" in answer.json()["detail"]
    answer = one.call("GET", CASES, [("Cookie", f".ASPXAUTH={mine}"), ("Cookie", f".ASPXAUTH={other}")])
    assert answer.status == 401


def test_a_session_replayed_after_log_out_is_nobody_on_any_proxy(pair, crm, user):
    one, two = pair
    cookie = cookie_of(log_in(one, user))
    assert cases(one, cookie).status == cases(two, cookie).status == 200
    assert one.call("POST", LOGOUT, holding(cookie, **JSON), b"{}").status == 200
    crm.reset()
    assert cases(one, cookie).status == 401
    eventually(lambda: cases(two, cookie).status == 401 and two.metric("tollgate_session_unknown_total") > 0, 5,
               "the other proxy has noticed")
    crm.reset()
    assert cases(two, cookie).json()["reason"] == "token_invalid"
    assert crm.targets() == [], "the CRM is not asked any more"


def test_a_session_that_the_crm_ended_is_forgotten(pair, crm_process, crm, user):
    one, two = pair
    cookie = cookie_of(log_in(one, user))
    with crm_process._client() as client:
        assert client.request("POST", "/_standin/expire", body=b"").status == 204
    reply = cases(one, cookie)
    assert reply.status == 401 and reply.get("Content-Type").startswith("application/json"), "the CRM's own answer"
    eventually(lambda: cases(one, cookie).get("Content-Type") == "application/problem+json", 5, "it is refused here")
    eventually(lambda: cases(two, cookie).get("Content-Type") == "application/problem+json", 5, "and there")


def test_a_cookie_that_the_crm_makes_anew_goes_on_for_the_same_user(pair, crm, user):
    one, two = pair
    cookie = cookie_of(log_in(one, user))
    renewed = cookie_of(cases(one, cookie, **{"X-Standin-Renew": "1"}))
    assert renewed != cookie
    assert cases(two, renewed).status == 200
    assert one.used(holding(renewed)) == 1
    assert two.used(holding(renewed)) == 2


def test_a_killed_proxy_takes_no_session_with_it(pair, crm, user):
    one, two = pair
    cookie = cookie_of(log_in(one, user))
    one.kill()
    assert cases(two, cookie).status == 200
    one.launch()
    one.wait_ready()
    assert cases(one, cookie).status == 200


def test_one_user_is_one_account_however_he_spells_himself(pair, crm):
    one, _ = pair
    for typed in ("Ann Lee", "ANN LEE", " ann lee "):
        assert cases(one, cookie_of(log_in(one, typed))).status == 200
    cookie = cookie_of(log_in(one, "ann LEE"))
    assert one.used(holding(cookie)) == 3
    assert one.usage(holding(cookie))["user"] == "Ann Lee", "as the directory spells her"


def test_a_log_in_whose_user_cannot_be_told_is_refused(pair, crm, user):
    one, _ = pair
    for body, status in ((b'{"UserName":"a","username":"b","UserPassword":"secret"}', 400), (b"<Login/>", 400),
                         (b'{"UserPassword":"secret"}', 400), (b'{"UserName":"a\\u0000b","UserPassword":"secret"}', 400),
                         (b'{"UserName":"' + b"x" * 20_000 + b'"}', 413)):
        assert one.call("POST", LOGIN, JSON, body).status == status, body[:60]
    assert one.call("POST", LOGIN, {**JSON, "Content-Encoding": "gzip"}, b"x").status == 415
    assert one.call("POST", LOGIN, JSON, chunked=[b"x" * 9_000, b"x" * 9_000]).status == 413
    assert crm.targets() == []


def test_the_raw_session_is_nowhere_but_at_the_crm(pair, redis, crm, user):
    one, two = pair
    cookie = cookie_of(log_in(one, user))
    assert cases(two, cookie).status == 200
    keys = [key for key in redis.command_line("KEYS", "l:*").splitlines() if key]
    values = [redis.command_line("GET", key) for key in keys]
    assert any(user.lower() in value for value in values)
    for gate in pair:
        texts = [gate.log(), json.dumps(gate.access_lines()), *keys, *values]
        with open(gate.folder + "/access.log", encoding="utf-8") as file:
            texts.append(file.read())
        assert not any(cookie in text for text in texts)
    ttl = min(int(redis.command_line("PTTL", key)) for key in keys)
    assert 0 < ttl <= 7_200_000 + 200 + 60_000


def test_a_token_and_another_users_session_do_not_mix(proxy, tmp_path, crm, user):
    settings = sessions(tmp_path)
    del settings["identity"]["jwt"]
    one = proxy(**settings)
    cookie = cookie_of(log_in(one, user))
    with_both = {**bearer(user + "-other"), "Cookie": f"a=1; .ASPXAUTH={cookie}; BPMLOADER=x"}
    answer = one.call("GET", CASES, with_both)
    assert answer.status == 200 and answer.get("X-Standin-User") is None, "his session stays here"
    assert one.used(bearer(user + "-other")) == 1
    assert one.call("GET", CASES, {**bearer(user), "Cookie": f".ASPXAUTH={cookie}"}).get("X-Standin-User") == user
    assert one.call("GET", CASES, {"Authorization": "Basic eDp5", "Cookie": f".ASPXAUTH={cookie}"}).status == 200
    assert one.call("GET", CASES, {"Authorization": "Bearer x.y.z", "Cookie": f".ASPXAUTH={cookie}"}).status == 401


def test_an_idle_session_ends_and_one_in_use_goes_on(proxy, tmp_path, crm, user):
    one = proxy(**sessions(tmp_path, recheck="100ms", idle="2s", max_age="1h"))
    used, idle = cookie_of(log_in(one, user)), cookie_of(log_in(one, user + "-idle"))
    until = time.monotonic() + 2.6
    while time.monotonic() < until:
        assert cases(one, used).status == 200
        time.sleep(0.1)
    assert cases(one, idle).status == 401
    assert cases(one, used).status == 200


def test_without_the_store_a_log_in_holds_here_and_spreads_when_it_is_back(proxy, start, tmp_path, crm, user):
    own = start(Redis(str(tmp_path), "own-redis"))
    settings = sessions(tmp_path, recheck="200ms")
    settings["store_settings"] = {"on_outage": "allow"}
    one, two = (proxy(store=own.url, name=name, **settings) for name in ("one", "two"))
    before = cookie_of(log_in(one, user))
    own.kill()
    eventually(lambda: one.metric("tollgate_store_up") == 0 and two.metric("tollgate_store_up") == 0, 10, "both have noticed")
    cookie = cookie_of(log_in(one, user + "-b"))
    assert cases(one, cookie).status == 200
    assert cases(one, before).status == 200, "what is known goes on"
    answer = cases(two, cookie)
    assert answer.status == 503 and answer.get("Retry-After") and answer.json()["reason"] == "store_unavailable"
    assert one.call("POST", LOGOUT, holding(before, **JSON), b"{}").status == 200
    assert cases(one, before).status == 401
    own.launch()
    eventually(lambda: cases(two, cookie).status == 200, 15, "the other proxy knows the log-in")
    eventually(lambda: cases(two, before).status == 401, 15, "and the log-out")
    eventually(lambda: one.metric("tollgate_sessions_unpublished") == 0, 15, "all is told")
    assert cases(one, before).status == 401


def test_a_store_that_lost_everything_is_told_again(pair, redis, crm, user):
    one, two = pair
    cookie = cookie_of(log_in(one, user))
    for key in redis.command_line("KEYS", "l:*").splitlines():
        redis.command_line("DEL", key)
    eventually(lambda: cases(one, cookie).status == 200 and cases(two, cookie).status == 200, 5 * PATIENCE, "both know it")


def test_other_proxies_need_the_same_secret(pair, proxy, tmp_path, crm, user):
    one, _ = pair
    settings = sessions(tmp_path)
    other = tmp_path / "other.key"
    other.write_text(SECRET + "-other")
    settings["identity"]["sessions"]["secret_file"] = str(other)
    stranger = proxy(name="stranger", **settings)
    cookie = cookie_of(log_in(one, user))
    assert cases(one, cookie).status == 200
    assert cases(stranger, cookie).status == 401


def test_sessions_survive_a_reload(pair, crm, user):
    one, _ = pair
    cookie = cookie_of(log_in(one, user))
    one.write_config(proxy={"legacy_rate_limit_headers": True})
    one.reload()
    eventually(lambda: cases(one, cookie).get("X-RateLimit-Limit") == "1000", 10, "the new configuration serves")


def test_scripts_and_pages_need_no_session(pair, crm):
    one, _ = pair
    for target in ("/Login/NuiLogin.aspx", "/core/hash/app.js"):
        assert one.call("GET", target, {"Cookie": ".ASPXAUTH=stale"}).status in (401, 404)
    assert len(crm.targets()) == 2, "they reached the CRM"
