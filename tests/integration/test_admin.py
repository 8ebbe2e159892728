"""The admin port and the commands that speak to it."""
import json
import threading

from harness import Client, bearer, eventually
from requests_crm import CASES


def count(gate, headers, times):
    return [gate.call("GET", CASES + "/$count", headers).status for _ in range(times)]


def test_an_override_counts_at_once_on_every_proxy(proxy, crm, user):
    quotas = [{"name": "daily", "limit": 2, "window": "24h", "per": ["user"], "on": "licensed"}]
    one, two = proxy(name="one", quotas=quotas), proxy(name="two", quotas=quotas)
    headers = bearer(user)
    assert count(one, headers, 3) == [200, 200, 429]
    reply = one.admin(f"/api/v1/users/-/{user}/quotas/daily", method="PUT", with_token=True, body=b'{"limit": 4}')
    assert reply.status in (200, 204), reply
    assert count(two, headers, 3) == [200, 200, 429]
    assert two.used(headers) == 4
    assert one.admin(f"/api/v1/users/-/{user}/quotas/daily", method="DELETE", with_token=True).status in (200, 204)
    assert count(two, headers, 1) == [429]


def test_an_override_survives_a_restart(proxy, crm, user):
    gate = proxy(quotas=[{"name": "daily", "limit": 1, "window": "24h", "per": ["user"], "on": "licensed"}])
    headers = bearer(user)
    gate.admin(f"/api/v1/users/-/{user}/quotas/daily", method="PUT", with_token=True, body=b'{"limit": 2}')
    assert count(gate, headers, 1) == [200]
    assert gate.stop() == 0
    gate.launch()
    gate.wait_ready()
    assert count(gate, headers, 2) == [200, 429]


def test_the_commands_speak_to_a_running_proxy(proxy, crm, user):
    gate = proxy(quotas=[{"name": "daily", "limit": 1, "window": "24h", "per": ["user"], "on": "licensed"}])
    headers = bearer(user)
    assert count(gate, headers, 2) == [200, 429]
    made = gate.command_run("quota", "set", user, "--rule", "daily", "--limit", "3", "-c", gate.config_path)
    assert made.returncode == 0, made.stderr
    assert count(gate, headers, 3) == [200, 200, 429]
    shown = gate.command_run("usage", user, "-c", gate.config_path, "-o", "json")
    assert shown.returncode == 0, shown.stderr
    limit = json.loads(shown.stdout)["limits"][0]
    assert limit["used"] == 3 and limit["limit"] == 3
    assert gate.command_run("quota", "reset", user, "--rule", "daily", "--counted", "-c", gate.config_path).returncode == 0
    assert gate.used(headers) == 0


def test_a_command_without_a_proxy_says_unavailable(proxy, crm, user):
    gate = proxy()
    gate.stop()
    asked = gate.command_run("usage", user, "-c", gate.config_path)
    assert asked.returncode == 69, (asked.returncode, asked.stderr)


def test_a_bad_change_is_refused(proxy, crm, user):
    gate = proxy()
    for body in (b'{"limit": -1}', b'{"limit": "many"}', b"not json", b'{"limitt": 1}'):
        assert gate.admin(f"/api/v1/users/-/{user}/quotas/daily", method="PUT", with_token=True, body=body).status in (400, 422), body
    assert gate.admin(f"/api/v1/users/-/{user}/quotas/nosuch", method="PUT", with_token=True, body=b'{"limit": 1}').status == 404


def test_reload_by_the_admin_api_tells_every_mistake(proxy, crm):
    gate = proxy()
    assert gate.admin("/api/v1/config/reload", method="POST", with_token=True).status == 200
    gate.write_config(nonsense=1, workerz=2)
    reply = gate.admin("/api/v1/config/reload", method="POST", with_token=True)
    assert reply.status == 422 and b"nonsense" in reply.body and b"workerz" in reply.body
    assert gate.call("GET", "/echo").status == 200


def test_probes_answer_while_the_proxy_is_busy(proxy, crm, auth):
    gate = proxy(workers=1)
    stop, failures = threading.Event(), []

    def traffic():
        with Client(gate.port) as client:
            while not stop.is_set():
                if client.request("GET", "/bytes/1000000").status != 200:
                    failures.append(1)

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert gate.admin("/livez").status == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_readiness_follows_the_store_when_calls_need_it(proxy, start, tmp_path, crm, auth):
    from harness import Redis
    redis = start(Redis(str(tmp_path), name="own-redis"))
    strict = proxy(name="strict", store=redis.url, store_settings={"on_outage": "deny"})
    lenient = proxy(name="lenient", store=redis.url, store_settings={"on_outage": "allow"})
    redis.kill()
    eventually(lambda: count(strict, auth, 1) == [503] and strict.admin("/readyz").status == 503, 10, "not ready without its store")
    assert strict.admin("/livez").status == 200
    assert lenient.admin("/readyz").status == 200
    redis.start()
    eventually(lambda: strict.admin("/readyz").status == 200, 15, "ready again")


def test_a_grant_acts_at_once_everywhere_and_its_reason_survives_a_kill(proxy, crm, user):
    quotas = [{"name": "daily", "limit": 2, "window": "24h", "per": ["user"], "on": "licensed"}]
    one, two = proxy(name="one", quotas=quotas), proxy(name="two", quotas=quotas)
    headers = bearer(user)
    assert count(one, headers, 3) == [200, 200, 429]
    path = f"/api/v1/users/-/{user}/quotas/daily"
    assert one.admin(path + "/grants", method="POST", with_token=True, body=b'{"extra": 2, "for": "1h"}').status == 400
    made = one.command_run("quota", "grant", user, "--rule", "daily", "--extra", "2", "--for", "1h", "--reason", "month-end", "-c", one.config_path)
    assert made.returncode == 0 and "month-end" in made.stdout, made
    assert count(two, headers, 3) == [200, 200, 429]
    # A limit set afterwards keeps the grant.
    assert one.admin(path, method="PUT", with_token=True, body=b'{"limit": 3, "reason": "contract 7"}').status == 200
    assert count(one, headers, 2) == [200, 429]
    one.kill()
    one.launch()
    one.wait_ready()
    shown = json.loads(one.admin(path, with_token=True).body)
    assert (shown["limit"], shown["override"], shown["grants"][0]["extra"], shown["grants"][0]["reason"]) == (5, 3, 2, "month-end")
    latest = json.loads(one.admin("/api/v1/audit?limit=2", with_token=True).body)
    assert [(entry["action"], entry["reason"]) for entry in latest] == [("quota.set", "contract 7"), ("quota.grant", "month-end")]
    assert latest[0]["actor"].startswith("127.0.0.1 ") and latest[0]["subject"] == f"-/{user} daily"
    assert one.admin(path + "/grants", method="DELETE", with_token=True).status == 200
    assert one.admin(path, method="DELETE", with_token=True).status == 200
    assert count(two, headers, 1) == [429]


def test_settle_hands_in_what_was_counted(proxy, crm, user):
    quotas = [{"name": "daily", "limit": 10, "window": "24h", "per": ["user"], "on": "licensed"}]
    one, two = proxy(name="one", quotas=quotas), proxy(name="two", quotas=quotas)
    headers = bearer(user)
    assert count(one, headers, 3) == [200] * 3
    assert one.admin("/api/v1/settle", method="POST", with_token=True).status == 200
    assert two.used(headers) == 3


def test_a_candidate_limit_is_reported_and_refuses_nothing(proxy, crm, user):
    quotas = [{"name": "daily", "limit": 3, "window": "24h", "per": ["user"], "on": "licensed"},
              {"name": "next", "mode": "shadow", "limit": 1, "window": "24h", "per": ["user"], "on": "licensed"}]
    gate = proxy(quotas=quotas)
    headers = bearer(user)
    replies = [gate.call("GET", CASES + "/$count", headers) for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3
    assert all("next" not in str(reply.headers) for reply in replies)
    limits = {limit["name"]: limit for limit in json.loads(gate.call("GET", "/.tollgate/usage", headers).body)["limits"]}
    assert limits["next"]["mode"] == "shadow" and limits["next"]["used"] == 1
    assert "mode" not in limits["daily"] and limits["daily"]["used"] == 3
    text = gate.admin("/metrics").body
    assert 'tollgate_shadow_violations_total{limit="next"} 2' in (text.decode() if isinstance(text, bytes) else text)
