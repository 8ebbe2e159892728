"""The quota store fails: the configured answer comes, in time, and all is well once it is back."""
import json
import os
import signal
import time

import pytest

from harness import PATIENCE, ROOT, SELF_SERVICE, Redis, bearer, eventually
from requests_crm import CASES


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), name="own-redis"))


def test_a_frozen_store_denies_whoever_holds_no_lease_within_the_bound_and_recovers(proxy, crm, own_redis, user, auth):
    gate = proxy(store=own_redis.url, store_settings={"timeout": f"{200 * PATIENCE}ms"})
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    own_redis.signal(signal.SIGSTOP)
    for i in range(3):
        started = time.monotonic()
        reply = gate.call("GET", CASES + "/$count", bearer(f"{user}-{i}"))
        assert reply.status == 503 and reply.json()["reason"] == "store_unavailable"
        assert int(reply.get("Retry-After")) >= 1
        assert time.monotonic() - started < 0.5 * PATIENCE
    with gate.client() as client:  # who holds a lease notices nothing
        for _ in range(50):
            started = time.monotonic()
            assert client.request("GET", CASES + "/$count", auth).status == 200
            assert time.monotonic() - started < 0.1 * PATIENCE
    own_redis.signal(signal.SIGCONT)
    eventually(lambda: gate.call("GET", CASES + "/$count", bearer(f"{user}-0")).status == 200, 10, "calls are admitted again")
    eventually(lambda: gate.used(auth) == 51, 10, "only admitted calls are counted")
    eventually(lambda: gate.used(bearer(f"{user}-1")) == 0, 10, "refused calls are not counted")


def proxy_with_store(proxy, url, on_outage):
    return proxy(store=url, store_settings={"on_outage": on_outage})


def test_allow_lets_calls_through_and_counts_them_as_degraded(proxy, crm, own_redis, user, auth):
    gate = proxy_with_store(proxy, own_redis.url, "allow")
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    own_redis.kill()
    new = bearer(user + "-new")
    for _ in range(5):
        assert gate.call("GET", CASES + "/$count", new).status == 200
    assert gate.metric("tollgate_store_up") == 0
    # A call is counted once its reply has left, which may be read before.
    eventually(lambda: gate.metric("tollgate_store_degraded_decisions_total") >= 5, 5, "all are counted as degraded")
    own_redis.start()
    eventually(lambda: gate.metric("tollgate_store_up") == 1, 15, "the store is up")
    eventually(lambda: gate.used(new) == 5, 15, "what was let through is counted after all")


def test_deny_refuses_while_the_store_is_down_and_admits_after(proxy, crm, own_redis, auth):
    gate = proxy_with_store(proxy, own_redis.url, "deny")
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    own_redis.kill()
    # Who holds a lease is served until the end of the connection is noticed.
    eventually(lambda: gate.call("GET", CASES + "/$count", auth).status == 503, 5, "the end of the connection is noticed")
    reply = gate.call("GET", CASES + "/$count", auth)
    assert reply.status == 503 and reply.json()["reason"] == "store_unavailable"
    # What needs no quota is served all the same.
    assert gate.call("GET", "/0/odata/$metadata", auth).status == 200
    assert gate.call("GET", "/echo").status == 200
    own_redis.start()
    eventually(lambda: gate.call("GET", CASES + "/$count", auth).status == 200, 15, "calls are admitted again")


def test_a_redis_user_with_the_rights_of_the_guide_is_enough(proxy, crm, own_redis, user, tmp_path):
    with open(os.path.join(ROOT, "docs/guide.md"), encoding="utf-8") as file:
        words = next(line.split() for line in file if line.strip().startswith("ACL SETUSER tollgate "))
    assert own_redis.command_line(*[word.replace("PASSWORD", "for-tollgate") for word in words]) == "OK"
    (tmp_path / "password").write_text("for-tollgate")
    (tmp_path / "sessions.key").write_text("session-secret-0123456789abcdef-0123456789abcdef")
    gate = proxy(store=own_redis.url, store_settings={"user": "tollgate", "password_file": str(tmp_path / "password")},
                 identity={"sessions": {"kinds": ["creatio"], "secret_file": str(tmp_path / "sessions.key")}},
                 licensing={"main_product_users": 1, "seat_lease": "1s", "concurrent_seats": {"capacity": 5, "idle": "10s"}})
    auth = bearer(user, licenses=(SELF_SERVICE,))
    eventually(lambda: gate.call("GET", CASES + "/$count", auth).status == 200, 15, "a seat, a lease and a call")
    assert gate.used(auth) == 1
    login = gate.call("POST", "/ServiceModel/AuthService.svc/Login", {"Content-Type": "application/json"},
                      json.dumps({"UserName": "Portal/" + user, "UserPassword": "secret"}).encode())
    cookie = next(value for name, value in login.headers if name == "Set-Cookie" and ".ASPXAUTH" in value).split(";")[0]
    assert gate.call("POST", "/0/rest/MainMenuService/Logout", {"Cookie": cookie}, b"").status == 200
    for command in (["quota", "set", user, "--rule", "daily", "--limit", "7"], ["quota", "reset", user, "--rule", "daily"],
                    ["license", "list"], ["license", "seats"], ["license", "release", user, "--pool", "self_service"],
                    ["export", "--verify", "--book", str(tmp_path / "book.sqlite")]):
        done = gate.command_run(*command, "-c", gate.config_path)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    gate.command_run("doctor", "-c", gate.config_path)
    assert gate.stop() == 0
    refused = own_redis.command_line("ACL", "LOG").split("\n")
    assert refused == [""], [f"{a}: {b}" for a, b in zip(refused, refused[1:]) if a in ("reason", "object")]


def test_a_flushed_script_cache_is_not_noticed(proxy, crm, own_redis, auth):
    gate = proxy(store=own_redis.url)
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    assert own_redis.command_line("SCRIPT", "FLUSH") == "OK"
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    assert gate.used(auth) == 2


def test_counts_survive_a_restart_and_a_crash_of_the_proxy(proxy, crm, own_redis, auth):
    quotas = [{"name": "daily", "limit": 6, "window": "24h", "per": ["user"], "on": "licensed"}]
    gate = proxy(store=own_redis.url, quotas=quotas)
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(3)] == [200] * 3
    assert gate.stop() == 0
    gate.launch()
    gate.wait_ready()
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(2)] == [200] * 2
    gate.kill()
    gate.launch()
    gate.wait_ready()
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(2)] == [200, 429]


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        direct = [int(word) for word in file.read().split()]
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as file:
                direct += [int(word) for word in file.read().split()]
        except OSError:
            pass
    return sorted(set(direct))


def redis_children(pid):
    found = []
    for child in children_of(pid):
        with open(f"/proc/{child}/comm", encoding="utf-8") as file:
            if "redis" in file.read():
                found.append(child)
    return found


def test_the_embedded_store_is_restarted_when_it_dies_and_keeps_its_counts(proxy, crm, auth):
    gate = proxy(store="embedded:redis")
    assert [gate.call("GET", CASES + "/$count", auth).status for _ in range(4)] == [200] * 4
    first = eventually(lambda: redis_children(gate.pid), 10, "there is a redis-server child")
    time.sleep(1.2)  # its log is written to disk every second
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: [pid for pid in redis_children(gate.pid) if pid not in first], 15, "another child is started")
    eventually(lambda: gate.call("GET", CASES + "/$count", auth).status == 200, 15, "calls are admitted again")
    # A charge that was answered too late is given back a moment later.
    eventually(lambda: gate.used(auth) == 5, 10, "the four calls before the crash are still counted")


def test_the_embedded_store_ends_with_the_proxy(proxy, crm, auth):
    gate = proxy(store="embedded:redis")
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    child = eventually(lambda: redis_children(gate.pid), 10, "there is a redis-server child")[0]
    assert gate.stop() == 0
    eventually(lambda: not os.path.exists(f"/proc/{child}"), 10, "the child is gone")
    gate.launch()
    gate.wait_ready()
    assert gate.used(auth) == 1


def test_the_embedded_store_ends_when_the_proxy_is_killed(proxy, crm, auth):
    gate = proxy(store="embedded:redis")
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    child = eventually(lambda: redis_children(gate.pid), 10, "there is a redis-server child")[0]
    gate.kill()
    eventually(lambda: not os.path.exists(f"/proc/{child}"), 10, "the child is gone")
    gate.launch()
    gate.wait_ready()
    assert gate.call("GET", CASES + "/$count", auth).status == 200


def test_a_unix_socket_store_works(proxy, start, tmp_path, crm, auth):
    path = f"/tmp/tg-{os.getpid()}.sock"
    redis = start(Redis(str(tmp_path), name="unix-redis", extra=["--unixsocket", path]))
    gate = proxy(store=f"redis+unix://{path}?db=0")
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    assert gate.used(auth) == 1
    assert redis.running()


def test_a_password_from_a_file_opens_the_store(proxy, start, tmp_path, crm, auth):
    redis = Redis(str(tmp_path), name="auth-redis", extra=["--requirepass", "s3cret-pass"])
    redis.command_line_plain = redis.command_line
    redis.command_line = lambda *words: redis.command_line_plain("-a", "s3cret-pass", "--no-auth-warning", *words)
    start(redis)
    secret = tmp_path / "redis.password"
    secret.write_text("s3cret-pass\n")
    gate = proxy(store=redis.url, store_settings={"password_file": str(secret)})
    assert gate.call("GET", CASES + "/$count", auth).status == 200
    assert "s3cret-pass" not in gate.log()
