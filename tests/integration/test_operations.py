"""What operators see: health, metrics, access log, commands."""
import json
import re
import subprocess
import time

import pytest

from harness import PATIENCE, TOLLGATE, Proxy, bearer, eventually
from requests_crm import CASES, json_batch


def test_health_pages_need_no_token(gate):
    for path in ("/livez", "/readyz", "/metrics", "/version"):
        assert gate.admin(path).status == 200, path
    verbose = gate.admin("/readyz?verbose")
    assert verbose.status == 200 and len(verbose.body.splitlines()) >= 2


def test_the_version_page_names_version_and_revision(gate):
    body = gate.admin("/version").body.decode()
    assert re.search(r"\d+\.\d+\.\d+", body)


def test_other_admin_pages_need_the_token(gate):
    assert gate.admin("/api/v1/usage?user=x").status == 401
    wrong = gate.admin_token
    gate.admin_token = "wrong"
    try:
        assert gate.admin("/api/v1/usage?user=x", with_token=True).status == 401
    finally:
        gate.admin_token = wrong


def test_metrics_agree_with_what_was_sent(proxy, crm, user):
    gate = proxy()
    headers = bearer(user)
    with gate.client() as client:
        for _ in range(7):
            client.request("GET", CASES + "/$count", headers)
        batch, body = json_batch([("GET", "Case?$top=1")] * 3)
        client.request("POST", "/0/odata/$batch", {**headers, **batch}, body)
        for _ in range(2):
            client.request("DELETE", CASES + "(00000029-57a0-4d1c-9c0d-000000000029)", headers)
        client.request("GET", CASES)
    eventually(lambda: gate.metric("tollgate_requests_total") == 11, 10, "all requests are counted")
    assert gate.metric("tollgate_requests_total", code="200") == 8
    assert gate.metric("tollgate_requests_total", code="403") == 2
    assert gate.metric("tollgate_requests_total", code="401") == 1
    assert gate.metric("tollgate_calls_total", object="Case", operation="read", reason="ok") == 10
    assert gate.metric("tollgate_calls_total", reason="operation_not_licensed") == 2
    assert gate.metric("tollgate_request_duration_seconds_count") == 11
    assert gate.metric("tollgate_store_up") == 1
    eventually(lambda: gate.metric("tollgate_token_cache_misses_total") >= 1 and gate.metric("tollgate_token_cache_hits_total") >= 8, 10,
               "the workers report their caches")
    assert gate.metric("tollgate_build_info") == 1
    assert gate.metric("process_resident_memory_bytes") > 1_000_000


def test_the_metrics_page_is_well_formed(gate):
    reply = gate.admin("/metrics")
    assert reply.get("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    series = set()
    for line in reply.body.decode().splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* .+", line), line
            continue
        assert re.match(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"]*"(,[a-zA-Z_][a-zA-Z0-9_]*="[^"]*")*,?\})? [-+0-9.eEInfNa]+$', line), line
        name = line.rsplit(" ", 1)[0]
        assert name not in series, f"{name} stands twice"
        series.add(name)


def test_the_number_of_series_does_not_grow_with_users(proxy, crm, user):
    gate = proxy()
    for number in range(5):
        gate.call("GET", CASES + "/$count", bearer(f"{user}-{number}", org=f"org{number}"))
    before = {name for name in gate.metrics() if "_bucket" not in name}
    with gate.client() as client:
        for number in range(300):
            client.request("GET", CASES + f"/$count?x={number}", bearer(f"{user}-x{number}", org=f"orgx{number}", tenant=f"t{number}"))
            client.request("GET", f"/unknown{number}", bearer(f"{user}-x{number}"))
    after = {name for name in gate.metrics() if "_bucket" not in name}
    assert len(after) - len(before) <= 12, sorted(after - before)
    assert not any(user in name for name in after)


def test_objects_that_clients_invent_make_no_series(proxy, crm, auth):
    gate = proxy()
    with gate.client() as client:
        for number in range(3):
            client.request("GET", f"/0/odata/Invented{number}", auth)
        before = len(gate.metrics())
        for number in range(100):
            client.request("GET", f"/0/odata/Thing{number}", auth)
    assert len(gate.metrics()) - before <= 5


def test_one_access_line_a_request_with_what_matters(proxy, crm, user):
    gate = proxy()
    headers = bearer(user, org="acme")
    gate.call("GET", CASES + "/$count?$filter=Secret+eq+1", {**headers, "X-Request-Id": "line-0001", "Cookie": "BPMLOADER=hush-cookie"})
    gate.call("DELETE", CASES + "(00000029-57a0-4d1c-9c0d-000000000029)", {**headers, "X-Request-Id": "line-0002"})
    gate.call("GET", CASES, {"X-Request-Id": "line-0003"})
    lines = {line["request_id"]: line for line in eventually(lambda: len(gate.access_lines()) == 3 and gate.access_lines(), 10, "three lines")}
    first, second, third = lines["line-0001"], lines["line-0002"], lines["line-0003"]
    assert first["user"] == user and first["organization"] == "acme"
    assert first["method"] == "GET" and first["path"] == CASES + "/$count"
    assert first["status"] == 200 and first["reason"] == "ok" and first["units"] == 1
    assert "Case" in json.dumps(first["objects"])
    assert first["client"] == "127.0.0.1"
    assert second["status"] == 403 and second["reason"] == "operation_not_licensed" and second["units"] == 0
    assert third["status"] == 401 and third["reason"] == "token_missing"


def test_tokens_and_cookies_appear_nowhere(proxy, crm, user):
    gate = proxy()
    headers = bearer(user)
    secret = headers["Authorization"].split(" ", 1)[1]
    gate.call("GET", CASES, {**headers, "Cookie": "BPMLOADER=hush-cookie"})
    gate.call("GET", CASES, {"Authorization": "Bearer " + secret[:-4] + "AAAA"})
    gate.call("GET", "/echo?access_token=" + secret)
    eventually(lambda: len(gate.access_lines()) == 3, 10, "the lines are written")
    with open(gate.folder + "/access.log", encoding="utf-8") as file:
        text = file.read() + gate.log() + gate.admin("/metrics").body.decode()
    assert secret[-30:] not in text and "hush-cookie" not in text and secret[:40] not in text


def test_check_accepts_a_good_file_and_names_every_mistake(tmp_path, crm, redis):
    gate = Proxy(str(tmp_path), crm.url, redis.url)
    gate.write_config()
    good = gate.command_run("check", "-c", gate.config_path)
    assert good.returncode == 0, good.stderr + good.stdout
    gate.write_config(listenrs=[], workers="many", quotas=[{"name": "daily", "limit": 1, "window": "24 parsecs"}])
    bad = gate.command_run("check", "-c", gate.config_path)
    text = bad.stdout + bad.stderr
    assert bad.returncode == 78
    for needle in ("listenrs", "listeners", "workers", "window"):
        assert needle in text, text
    assert len(re.findall(r"tollgate\.yaml:\d+:\d+", text)) >= 3, text


def test_the_token_command_mints_what_the_proxy_accepts(proxy, crm, user):
    gate = proxy()
    made = gate.command_run("token", "-c", gate.config_path, "--user", user, "--type", "portal", "--license", "customer portal on-site")
    assert made.returncode == 0, made.stderr
    reply = gate.call("GET", CASES + "/$count", {"Authorization": "Bearer " + made.stdout.strip()})
    assert reply.status == 200, reply
    expired = gate.command_run("token", "-c", gate.config_path, "--user", user, "--expired")
    assert gate.call("GET", CASES, {"Authorization": "Bearer " + expired.stdout.strip()}).json()["reason"] == "token_expired"


def test_doctor_reports_on_store_and_limits(proxy, crm):
    gate = proxy()
    report = gate.command_run("doctor", "-c", gate.config_path)
    text = report.stdout + report.stderr
    assert report.returncode in (0, 1)
    assert "redis" in text.lower() and "openssl" in text.lower()


def test_explain_tells_what_a_request_costs(proxy, crm, user):
    gate = proxy()
    report = gate.command_run("explain", "GET", CASES, "-c", gate.config_path, "-o", "json")
    assert report.returncode == 0, report.stderr
    assert "Case" in report.stdout and "read" in report.stdout


def test_version_and_schema_print(tmp_path):
    version = subprocess.run([TOLLGATE, "version"], capture_output=True, text=True, timeout=30, check=False)
    assert version.returncode == 0 and re.search(r"\d+\.\d+\.\d+", version.stdout)
    schema = subprocess.run([TOLLGATE, "schema"], capture_output=True, text=True, timeout=30, check=False)
    assert json.loads(schema.stdout)["properties"]["listeners"]


@pytest.mark.parametrize("words, code", [([], 2), (["frobnicate"], 2), (["check", "-c", "/nowhere.yaml"], 78), (["-h"], 0), (["serve", "-h"], 0)])
def test_exit_codes_of_the_command_line(words, code):
    assert subprocess.run([TOLLGATE, *words], capture_output=True, timeout=30, check=False).returncode == code


def test_the_whole_path_adds_little_time(gate, crm, auth):
    """Not a benchmark: only that nothing waits for a timer."""
    with gate.client() as client:
        client.request("GET", CASES + "/$count", auth)
        started = time.monotonic()
        for _ in range(50):
            client.request("GET", CASES + "/$count", auth)
        assert (time.monotonic() - started) / 50 < 0.02 * PATIENCE
