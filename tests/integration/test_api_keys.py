"""API keys: their hashes in a file, the key itself with its owner alone."""
import json

import pytest

from harness import bearer, eventually, token
from requests_crm import CASES

COLUMNS = "hash,user,tenant,organization,license,user_type,expires\n"
OPEN = {"system": "none", "main_products": None, "main_product_users": None}


@pytest.fixture
def keyed(proxy, tmp_path):
    """A proxy that knows no key yet."""

    def make(**settings):
        (tmp_path / "keys.csv").write_text(COLUMNS)
        (tmp_path / "keys.secret").write_text("api-key-secret-0123456789abcdef-0123456789abcdef")
        settings = {"file": str(tmp_path / "keys.csv"), "secret_file": str(tmp_path / "keys.secret"), **settings}
        return proxy(identity={"api_keys": settings}, licensing=OPEN)

    return make


def create(gate, tmp_path, user, *words):
    """Makes a key with the command, adds its rows to the file and reloads; answers the key."""
    made = gate.command_run("key", "create", "-c", gate.config_path, "--user", user, "-o", "json", *words)
    assert made.returncode == 0, made.stderr
    made = json.loads(made.stdout)
    with open(tmp_path / "keys.csv", "a", encoding="utf-8") as file:
        file.write("\n".join(made["rows"]) + "\n")
    reloads = gate.log().count("configuration reloaded")
    gate.reload()
    eventually(lambda: gate.log().count("configuration reloaded") > reloads, 10, "the reload")
    return made["key"]


def test_a_key_that_is_made_calls_after_a_reload_and_is_stored_nowhere(keyed, tmp_path, crm, user):
    gate = keyed()
    assert gate.call("GET", CASES, {"X-API-Key": "tgk_" + "A" * 43}).status == 401
    key = create(gate, tmp_path, user, "--type", "portal", "--org", "Best, Ltd")
    answer = eventually(lambda: (reply := gate.call("GET", CASES, {"X-API-Key": key})).status == 200 and reply, 10, "the key is known")
    assert "r=999" in answer.get("RateLimit"), answer
    assert gate.used({"X-API-Key": key}) == 1
    assert gate.used(bearer(user)) == 1, "the quota is the user's, however he proves to be"
    line = eventually(lambda: next((line for line in gate.access_lines() if line["status"] == 200 and line["path"] == CASES), None), 5, "the log")
    assert (line["user"], line["organization"]) == (user, "Best, Ltd")
    for path in ("access.log", "../tollgate.log", "../keys.csv"):
        with open(f"{gate.folder}/{path}", encoding="utf-8") as file:
            assert key not in file.read()
    with open(tmp_path / "keys.csv", "w", encoding="utf-8") as file:
        file.write(COLUMNS)
    gate.reload()
    eventually(lambda: gate.call("GET", CASES, {"X-API-Key": key}).status == 401, 10, "a row that is gone is a key that is gone")


def test_the_key_goes_no_further_than_here(keyed, tmp_path, crm, user):
    gate = keyed(header="X-Portal-Key")
    key = create(gate, tmp_path, user)
    for target in ("/echo", "/0/odata/Case"):
        eventually(lambda t=target: gate.call("GET", t, {"X-Portal-Key": key}).status == 200, 10, "the key is known")
    told = gate.call("GET", "/echo", {"X-Portal-Key": key, "X-Kept": "1"}).json()["headers"]
    assert ["X-Kept", "1"] in told and key not in json.dumps(told)


def test_two_users_in_one_request_are_refused_rather_than_guessed(keyed, tmp_path, crm, user):
    gate = keyed()
    key = create(gate, tmp_path, user)
    eventually(lambda: gate.call("GET", CASES, {"X-API-Key": key}).status == 200, 10, "the key is known")
    assert gate.call("GET", CASES, {"X-API-Key": key, **bearer(user)}).status == 200
    crm.reset()
    refused = gate.call("GET", CASES, {"X-API-Key": key, **bearer("somebody-else")})
    assert (refused.status, refused.json()["reason"]) == (401, "token_invalid")
    assert "two different users" in refused.json()["detail"]
    forged = gate.call("GET", CASES, {"X-API-Key": key, "Authorization": "Bearer " + token(user, secret="another-secret-0123456789abcdef-0123")})
    assert forged.status == 401
    assert not crm.targets()


def test_a_broken_file_of_keys_never_replaces_a_good_one(keyed, tmp_path, crm, user):
    gate = keyed()
    key = create(gate, tmp_path, user)
    eventually(lambda: gate.call("GET", CASES, {"X-API-Key": key}).status == 200, 10, "the key is known")
    with open(tmp_path / "keys.csv", "a", encoding="utf-8") as file:
        file.write(key + ",root,,,,staff,\n")
    gate.reload()
    eventually(lambda: gate.metric("tollgate_config_last_reload_successful") == 0, 10, "the reload fails")
    assert gate.call("GET", CASES, {"X-API-Key": key}).status == 200
    checked = gate.command_run("check", "-c", gate.config_path)
    assert checked.returncode == 78 and "line 3: hash is not" in checked.stderr + checked.stdout
    assert key not in checked.stderr + checked.stdout + gate.log()
