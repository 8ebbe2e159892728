"""Users and licences as the CRM itself lists them: read with a service account, again and again, put under the operator's file,
kept for a start without the CRM. Whatever the CRM answers, what was known of users stays until something better is."""
import json
import os
import stat
import threading
import time

import pytest

from harness import CUSTOMER, PATIENCE, Standin, bearer, eventually
from http1 import Client
from requests_crm import CASES
from test_sessions import cookie_of, holding, log_in

JSON = {"Content-Type": "application/json"}


class Users:
    """What the stand-in CRM lists, and how it tells."""

    def __init__(self, crm):
        self.crm = crm
        self.accounts, self.packages = {}, {}

    def _send(self, method, path, fields):
        with Client(self.crm.port) as client:
            reply = client.request(method, "/0/odata/" + path, JSON, json.dumps(fields).encode())
            assert reply.status in (201, 204), reply
            return reply.json()["Id"] if reply.status == 201 else None

    def _one(self, known, entity, name):
        if name not in known:
            known[name] = self._send("POST", entity, {"Name": name})
        return known[name]

    def add(self, name, licenses=(CUSTOMER,), account="Acme", **more):
        contact = self._send("POST", "Contact", {"Name": name, "AccountId": self._one(self.accounts, "Account", account)})
        user = self._send("POST", "SysAdminUnit", {"Name": name, "SysAdminUnitTypeValue": 4, "Active": True, "ConnectionType": 1,
                                                   "ContactId": contact, **more})
        for license_name in licenses:
            self.license(user, license_name)
        return user

    def license(self, user, name, **more):
        return self._send("POST", "SysLicUser", {"SysUserId": user, "SysLicPackageId": self._one(self.packages, "SysLicPackage", name),
                                                 "Active": True, **more})

    def change(self, user, **fields):
        self._send("PATCH", f"SysAdminUnit({user})", fields)

    def withdraw(self, license_id):
        self._send("PATCH", f"SysLicUser({license_id})", {"Active": False})

    def how(self, **settings):
        self._send("POST", "StandinDirectory", settings)


@pytest.fixture
def lister(start, tmp_path):
    """A CRM that lists users, of this test's own."""
    return start(Standin(str(tmp_path), "lister"))


@pytest.fixture
def users(lister):
    users = Users(lister)
    users.add("Supervisor", licenses=(), ConnectionType=0)
    return users


@pytest.fixture
def syncing(proxy, tmp_path, lister):
    def make(name="tollgate", sync=None, identity=None, **changes):
        (tmp_path / "robot.password").write_text("secret\n")
        sync = {"url": lister.url + "/0", "user": "robot", "password_file": str(tmp_path / "robot.password"), "interval": "1s",
                "timeout": f"{2 * PATIENCE}s", **(sync or {})}
        sync = {key: value for key, value in sync.items() if value is not None}
        return proxy(name=name, identity={**(identity or {}), "directory": {"sync": sync}}, **changes)

    return make


def status(gate, user, **claims):
    return gate.call("GET", CASES, bearer(user, licenses=(), **claims)).status


def sync_now(gate, wanted=200):
    reply = gate.admin("/api/v1/directory/sync", "POST", with_token=True, body=b"")
    assert reply.status == wanted, reply
    return reply


def shown(gate, user=""):
    reply = gate.admin("/api/v1/directory" + (f"/users/{user}" if user else ""), with_token=True)
    return reply.json() if reply.status == 200 else reply.status


def failures(gate, reason):
    return gate.metric("tollgate_directory_sync_failures_total", reason=reason)


def test_a_user_of_the_crm_has_the_licences_that_the_crm_says(syncing, users, crm):
    users.add("Ann Lee")
    gate = syncing()
    assert status(gate, "ann lee") == 200, "known before the first call, and without case"
    assert status(gate, "Nobody") == 403, "no token and no directory names a licence"
    line = eventually(lambda: next((line for line in gate.access_lines() if line["status"] == 200), None), 5, "the log")
    assert (line["user"], line["organization"]) == ("ann lee", "Acme")
    assert shown(gate, "Ann%20Lee")["crm"] == {"organization": "Acme", "account": users.accounts["Acme"], "user_type": "portal",
                                               "active": True, "licenses": [CUSTOMER]}
    assert gate.metric("tollgate_directory_sync_rows", kind="users") == 2
    assert gate.metric("tollgate_directory_sync_rows", kind="licenses") == 1
    assert abs(gate.metric("tollgate_directory_sync_last_success_timestamp_seconds") - time.time()) < 30
    assert "secret" not in gate.log() and "BPMCSRF" not in gate.log()


def test_who_is_new_appears_who_is_deactivated_is_nobody_and_a_licence_goes(syncing, users, crm):
    users.add("first")
    gate = syncing()
    assert status(gate, "late") == 403
    late = users.add("late", licenses=())
    licence = users.license(late, CUSTOMER)
    eventually(lambda: status(gate, "late") == 200, 10 * PATIENCE, "the next sync")
    users.withdraw(licence)
    eventually(lambda: status(gate, "late") == 403, 10 * PATIENCE, "the licence is gone")
    users.license(late, CUSTOMER)
    eventually(lambda: status(gate, "late") == 200, 10 * PATIENCE, "it is back")
    users.change(late, Active=False)
    eventually(lambda: status(gate, "late") == 401, 10 * PATIENCE, "deactivated")
    refused = gate.call("GET", CASES, bearer("LATE", licenses=(CUSTOMER,)))
    assert (refused.status, refused.json()["reason"]) == (401, "token_invalid"), "whatever the token says, and however it is spelled"
    assert status(gate, "first") == 200
    users.change(late, Active=True)
    eventually(lambda: status(gate, "late") == 200, 10 * PATIENCE, "active again")


def test_staff_of_the_crm_is_staff(syncing, users, crm):
    users.add("boss", licenses=(), ConnectionType=0)
    users.add("ann")
    gate = syncing()
    assert status(gate, "boss") == 200, "staff needs no licence of the portal"
    assert shown(gate, "boss")["counts"]["user_type"] == "staff"


def test_the_operators_file_wins_cell_by_cell(syncing, users, crm, tmp_path):
    users.add("ann")
    users.add("bob", account="Best Ltd")
    users.change(users.add("eve"), Active=False)
    listed = tmp_path / "users.csv"
    listed.write_text("user,organization,license,active\nann,Other Ltd,,\nbob,,self-service portal,no\neve,,,yes\n")
    gate = syncing(licensing={"directory_file": str(listed)})
    ann = shown(gate, "ann")
    assert ann["counts"] == {"organization": "Other Ltd", "account": users.accounts["Acme"], "user_type": "portal", "active": True,
                             "licenses": [CUSTOMER]}
    assert ann["from"] == {"organization": "file", "account": "crm", "user_type": "crm", "active": "crm", "licenses": "crm"}
    assert [status(gate, user) for user in ("ann", "bob", "eve")] == [200, 401, 200]
    listed.write_text("user,organization\nann,Third Ltd\n")
    gate.reload()
    eventually(lambda: shown(gate, "ann")["counts"]["organization"] == "Third Ltd", 10, "the reload")
    assert [status(gate, user) for user in ("ann", "bob", "eve")] == [200, 200, 401], "the users of the CRM outlive a reload"


def test_sessions_of_the_crm_are_its_users_too(syncing, users, lister, crm, tmp_path):
    users.add("Portal/Ann")
    (tmp_path / "sessions.key").write_text("session-secret-0123456789abcdef-0123456789abcdef")
    gate = syncing(identity={"jwt": None, "sessions": {"kinds": "creatio", "secret_file": str(tmp_path / "sessions.key")}})
    cookie = cookie_of(log_in(gate, "Portal/Ann"))
    assert gate.call("GET", CASES, holding(cookie)).status == 200
    ann = shown(gate, "portal%2Fann")
    assert ann["counts"]["licenses"] == [CUSTOMER]
    with Client(lister.port) as client:
        rows = client.request("GET", "/0/odata/SysAdminUnit", {"Authorization": "Bearer directory"}).json()["value"]
    users.change(next(row["Id"] for row in rows if row["Name"] == "Portal/Ann"), Active=False)
    eventually(lambda: gate.call("GET", CASES, holding(cookie)).status == 401, 10 * PATIENCE, "the session of who is not active")


def test_a_start_without_the_crm_knows_the_users_of_before(syncing, users, lister, crm):
    users.add("ann")
    gate = syncing()
    kept = os.path.join(gate.folder, "journal", "crm-users.json")
    assert status(gate, "ann") == 200
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    assert gate.stop() == 0
    lister.stop()
    gate.start()
    assert status(gate, "ann") == 200
    assert "users of " + lister.url + "/0 are known from before" in gate.log()
    eventually(lambda: failures(gate, "unreachable") >= 2, 10 * PATIENCE, "tries")
    assert gate.log().count("identity.directory.sync failed") == 1, "one line, however often"
    explained = gate.command_run("explain", "GET", CASES, "--user", "ann")
    assert explained.returncode == 0 and CUSTOMER.lower() in explained.stdout.lower(), explained
    lister.start()
    Users(lister).add("ann", licenses=(), account="New Ltd")
    Users(lister).add("bob")
    eventually(lambda: status(gate, "bob") == 200, 60, "the CRM is back")
    assert status(gate, "ann") == 403, "and says something else of her"


def test_a_copy_of_another_crm_counts_for_nothing(syncing, users, lister, crm, start, tmp_path):
    users.add("ann")
    gate = syncing()
    assert status(gate, "ann") == 200 and gate.stop() == 0
    other = start(Standin(str(tmp_path), "other"))
    gate.settings["identity"]["directory"]["sync"]["url"] = other.url + "/0"
    gate.start()
    assert status(gate, "ann") == 403
    assert failures(gate, "empty") >= 1, "an empty list is no list"


def test_nobody_was_ever_read_and_tokens_say_who_users_are(syncing, lister, crm):
    lister.stop()
    begun = time.monotonic()
    gate = syncing()
    assert time.monotonic() - begun < 8 * PATIENCE, "the start waits for the CRM, but not for long"
    assert status(gate, "ann") == 403
    assert gate.call("GET", CASES, bearer("ann", licenses=(CUSTOMER,))).status == 200
    assert gate.metric("tollgate_directory_sync_last_success_timestamp_seconds") == 0


def test_a_wrong_password_is_said_once_and_changes_nothing(syncing, users, crm, tmp_path):
    users.add("ann")
    gate = syncing()
    assert status(gate, "ann") == 200
    (tmp_path / "wrong").write_text("wrong\n")
    gate.write_config(identity={"directory": {"sync": {"password_file": str(tmp_path / "wrong")}}})
    gate.reload()
    eventually(lambda: failures(gate, "log_in") >= 2, 10 * PATIENCE, "the sync with the new password")
    assert gate.log().count('does not let the user "robot" in') == 1
    assert status(gate, "ann") == 200


def test_a_session_that_the_crm_has_ended_is_opened_anew(syncing, users, lister, crm):
    users.add("ann")
    gate = syncing(sync={"interval": "1h"})
    with Client(lister.port) as client:
        client.request("POST", "/_standin/expire", body=b"")
    users.add("bob")
    sync_now(gate)
    assert status(gate, "bob") == 200
    assert sum("AuthService" in target for target in lister.targets()) == 2
    sync_now(gate)
    assert sum("AuthService" in target for target in lister.targets()) == 2, "one that lives is kept"


def test_an_authorization_takes_the_place_of_a_log_in(syncing, users, lister, crm, tmp_path):
    users.add("ann")
    (tmp_path / "bearer").write_text("Bearer directory\n")
    gate = syncing(sync={"user": None, "password_file": None, "authorization_file": str(tmp_path / "bearer")})
    assert status(gate, "ann") == 200
    assert not any("AuthService" in target for target in lister.targets())


@pytest.fixture
def by_client(syncing, lister, tmp_path):
    """Logs in with OAuth client credentials."""
    def make(secret="secret", sync=None, **oauth):
        (tmp_path / "client.secret").write_text(secret + "\n")
        return syncing(sync={"user": None, "password_file": None, "interval": "1h", **(sync or {}),
                             "oauth": {"token_url": lister.url + "/connect/token", "client_id": "tollgate",
                                       "client_secret_file": str(tmp_path / "client.secret"), **oauth}})

    return make


def tokens_asked(lister):
    return sum("/connect/token" in target for target in lister.targets())


@pytest.mark.parametrize("scope", ["", "ApplicationAccess_1 offline"])
def test_a_client_of_the_identity_service_reads_users_with_one_token(by_client, users, lister, crm, scope):
    users.add("ann")
    gate = by_client(scope=scope)
    assert status(gate, "ann") == 200
    for name in ("bob", "eve"):
        users.add(name)
        sync_now(gate)
        assert status(gate, name) == 200
    assert tokens_asked(lister) == 1, "it is kept"
    assert not any("AuthService" in target for target in lister.targets())


@pytest.mark.parametrize("secret,scope,why", [("not-the-secret", "", "invalid_client"), ("secret", "everything", "invalid_scope")])
def test_a_client_that_is_refused_is_a_log_in_that_failed_and_its_secret_stands_nowhere(by_client, users, lister, crm, secret, scope, why):
    users.add("ann")
    gate = by_client(secret=secret, scope=scope)
    assert failures(gate, "log_in") == 1 and status(gate, "ann") == 403
    refused = sync_now(gate, wanted=502)
    assert refused.json()["detail"].startswith("log_in") and why in refused.json()["detail"], refused
    assert f'answered 400: {why}: no token for the client "tollgate"' in gate.log()
    assert secret == "secret" or secret not in gate.log() + json.dumps(refused.json()) + json.dumps(shown(gate))
    assert not any("SysAdminUnit" in target and target.startswith("GET") for target in lister.targets()), "nothing is asked without a token"


@pytest.mark.parametrize("wrong", ["type", "none", "text"])
def test_a_token_reply_that_is_none_is_a_log_in_that_failed(by_client, users, lister, crm, wrong):
    users.add("ann")
    users.how(token=wrong)
    gate = by_client()
    assert failures(gate, "log_in") == 1 and status(gate, "ann") == 403
    users.how()
    sync_now(gate)
    assert status(gate, "ann") == 200


def test_a_token_is_asked_for_anew_before_it_ends(by_client, users, lister, crm):
    users.add("ann")
    users.how(lifetime=1)
    gate = by_client()
    began = tokens_asked(lister)
    eventually(lambda: sync_now(gate) and tokens_asked(lister) >= began + 2, 10 * PATIENCE, "half a second is over twice")
    users.how()
    eventually(lambda: sync_now(gate) and tokens_asked(lister) >= began + 3, 10 * PATIENCE, "the last short one")
    kept = tokens_asked(lister)
    sync_now(gate)
    assert tokens_asked(lister) == kept, "one of an hour serves on"
    assert failures(gate, "log_in") == 0


def test_a_token_that_is_refused_is_asked_for_anew_once(by_client, users, lister, crm):
    users.add("ann")
    gate = by_client()
    with Client(lister.port) as client:
        client.request("POST", "/_standin/expire", body=b"")
    users.add("bob")
    sync_now(gate)
    assert status(gate, "bob") == 200 and tokens_asked(lister) == 2
    users.how(fault="forbidden")
    sync_now(gate, wanted=502)
    assert failures(gate, "status") == 1 and tokens_asked(lister) == 2, "a right that is missing is no matter of the token"


def test_doctor_asks_for_a_token(by_client, users, lister, crm, tmp_path):
    users.add("ann")
    gate = by_client()
    assert "1 rows of SysLicUser on the first page" in gate.command_run("doctor").stdout
    gate.write_file("wrong.secret", "wrong")
    gate.write_config(identity={"directory": {"sync": {"oauth": {"client_secret_file": "wrong.secret"}}}})
    found = gate.command_run("doctor").stdout
    assert "invalid_client" in found and "authorization_file, or oauth" in found, found


@pytest.mark.parametrize("how", [{"cap": 2}, {"cap": 2, "links": True}])
def test_all_pages_are_read(syncing, users, lister, crm, how):
    for number in range(7):
        users.add(f"user{number}")
    users.how(**how)
    gate = syncing(sync={"page_rows": 3, "interval": "1h"})
    assert [status(gate, f"user{number}") for number in range(7)] == [200] * 7
    assert sum("GET /0/odata/SysAdminUnit" in target for target in lister.targets()) == 4
    assert gate.metric("tollgate_directory_sync_rows", kind="licenses") == 7


@pytest.mark.parametrize("fault,reason", [("loop", "paging"), ("endless", "too_large"), ("short", "paging"), ("huge", "too_large"),
                                          ("text", "reply"), ("forbidden", "status"), ("nobody", "empty")])
def test_a_list_that_is_none_changes_nothing(syncing, users, crm, fault, reason):
    users.add("ann")
    gate = syncing(sync={"interval": "1h", "max_rows": 1000, "timeout": "10s"})
    assert status(gate, "ann") == 200
    users.how(fault=fault)
    refused = sync_now(gate, wanted=502)
    assert refused.json()["detail"].startswith(reason), refused
    assert failures(gate, reason) == 1
    assert status(gate, "ann") == 200
    assert shown(gate)["crm"]["failure"]
    users.how()
    sync_now(gate)
    assert "failure" not in shown(gate)["crm"]


@pytest.mark.parametrize("fault", ["stall", "stall_mid_body", "close_mid_body", "garbage", "reset_before_reply"])
def test_a_crm_that_breaks_off_slows_nobody_down(syncing, users, lister, crm, fault):
    users.add("ann")
    gate = syncing(sync={"interval": "1h", "timeout": "1s"})
    lister.settings(fault=fault)
    begun = time.monotonic()
    sync_now(gate, wanted=502)
    assert time.monotonic() - begun < 4 * PATIENCE
    assert status(gate, "ann") == 200 and failures(gate, "unreachable") == 1
    lister.settings(fault="stall")
    gate.admin("/api/v1/settle", "POST", with_token=True, body=b"")
    begun = time.monotonic()
    assert gate.stop() == 0
    assert time.monotonic() - begun < 5 * PATIENCE


def test_rows_that_cannot_be_read_are_left_out_and_said(syncing, users, crm):
    users.add("ann")
    users.add("", licenses=())
    users.add("no flag", Active="yes")
    users.add("Twin")
    users.add("TWIN ")
    gate = syncing()
    assert status(gate, "ann") == 200
    assert gate.metric("tollgate_directory_sync_rows", kind="left_out") == 3
    assert "3 rows left out, the first: SysAdminUnit: " in gate.log()
    assert shown(gate, "twin") == 404, "nobody can tell which of them is meant"


def test_other_names_of_entities_and_columns_are_settings(syncing, users, lister, crm):
    users.add("ann", ContactId=None, UsrFirm="Own Ltd", licenses=())
    gate = syncing(sync={"users": {"organization": "UsrFirm", "account": ""}, "licenses": {"entity": ""}})
    assert shown(gate, "ann")["counts"] == {"organization": "Own Ltd", "user_type": "portal", "active": True}
    assert gate.call("GET", CASES, bearer("ann", licenses=(CUSTOMER,))).status == 200, "licences are left to tokens"
    assert not any("GET /0/odata/SysLicUser" in target for target in lister.targets())


def test_reloads_syncs_and_calls_do_not_wait_for_each_other(syncing, users, crm):
    users.add("busy")
    gate = syncing(quotas=[{"name": "wide", "limit": 1000000, "window": "24h", "per": ["user"], "on": "licensed"}])
    late = []

    def call_on():
        while not done.is_set():
            begun = time.monotonic()
            late.append((status(gate, "busy"), time.monotonic() - begun))

    def reload_on():
        while not done.is_set():
            assert gate.admin("/api/v1/config/reload", "POST", with_token=True, body=b"").status in (200, 422)  # 422: one is under way

    done = threading.Event()
    threads = [threading.Thread(target=target) for target in (call_on, call_on, reload_on)]
    for thread in threads:
        thread.start()
    for number in range(10):
        users.add(f"user{number}")
        sync_now(gate)
    done.set()
    for thread in threads:
        thread.join()
    assert {code for code, _ in late} == {200} and len(late) > 50
    assert max(seconds for _, seconds in late) < 1 * PATIENCE, "no call waits for a sync or a reload"
    assert [status(gate, f"user{number}") for number in range(10)] == [200] * 10
    begun = time.monotonic()
    assert gate.stop() == 0 and time.monotonic() - begun < 10 * PATIENCE


def test_directory_commands_show_where_a_row_is_from_and_sync_with_an_entry_in_the_audit(syncing, users, crm, tmp_path):
    users.add("ann")
    gate = syncing(sync={"interval": "1h"})
    table = gate.command_run("directory", "show", "ann")
    assert table.returncode == 0 and "organization  Acme" in table.stdout and "crm" in table.stdout, table
    assert json.loads(gate.command_run("directory", "show", "ann", "-o", "json").stdout)["from"]["licenses"] == "crm"
    assert gate.command_run("directory", "show", "zoe").returncode == 1
    users.add("zoe")
    synced = gate.command_run("directory", "sync", "--reason", "ticket 7")
    assert synced.returncode == 0 and "users" in synced.stdout, synced
    assert gate.command_run("directory", "show", "zoe").returncode == 0
    users.how(fault="text")
    failed = gate.command_run("directory", "sync")
    assert failed.returncode == 1 and "no page of rows" in failed.stderr, failed
    entries = gate.admin("/api/v1/audit", with_token=True).json()
    assert [(entry["action"], entry["reason"]) for entry in entries[:3]] == \
        [("directory.sync.failed", ""), ("directory.sync", ""), ("directory.sync", "ticket 7")]


def test_without_a_url_nothing_is_asked(proxy, crm):
    gate = proxy()
    refused = gate.admin("/api/v1/directory/sync", "POST", with_token=True, body=b"")
    assert refused.status == 409, refused
    assert shown(gate) == {}
    assert gate.command_run("directory", "show").returncode == 0


def test_doctor_logs_in_reads_the_first_page_and_asks_whoever_else_tells_who_calls(syncing, users, lister, crm, tmp_path):
    users.add("ann")
    (tmp_path / "client.secret").write_text("secret\n")
    (tmp_path / "sessions.key").write_text("session-secret-0123456789abcdef-0123456789abcdef")
    gate = syncing(identity={
        "introspection": {"url": lister.url + "/introspect", "client_id": "tollgate", "client_secret_file": str(tmp_path / "client.secret")},
        "sessions": {"kinds": "creatio", "secret_file": str(tmp_path / "sessions.key"),
                     "lookup": {"url": lister.url + "/0/rest/UsrWhoAmI/Get"}}})

    def found():
        findings = json.loads(gate.command_run("doctor", "-o", "json").stdout)["findings"]
        return {finding["text"].split(":")[0].split(" ")[0]: (finding["level"], finding["text"])
                for finding in findings if finding["subject"] == "identity"}

    names = {"identity.introspection", "identity.sessions.lookup", "identity.directory.sync"}
    good = found()
    assert set(good) == names and {level for level, _ in good.values()} == {"ok"}, good
    assert good["identity.directory.sync"][1].endswith("2 rows of SysAdminUnit, 1 rows of SysLicUser on the first page")
    assert "tollgate-doctor" not in json.dumps(good)
    gate.write_file("client.secret", "wrong")
    gate.write_config(identity={"introspection": {"client_secret_file": "client.secret"}, "directory": {"sync": {"password_file": "client.secret"}},
                                "sessions": {"lookup": {"url": "http://127.0.0.1:1/x"}}})
    bad = found()
    assert set(bad) == names and {level for level, _ in bad.values()} == {"problem"}, bad
    assert "does not let the user" in bad["identity.directory.sync"][1]
    lister.stop()
    gone = found()
    assert {level for level, _ in gone.values()} == {"problem"} and "unreachable" in gone["identity.directory.sync"][1]


def test_doctor_asks_zohos_current_user(proxy, crm):
    gate = proxy(identity={"jwt": None, "current_user": {"url": crm.url + "/crm/v8/users?type=CurrentUser"}},
                 catalogue={"dialects": ["zoho"]}, licensing={"system": "none", "main_products": None, "main_product_users": None})
    assert "identity.current_user: " + crm.url in gate.command_run("doctor").stdout
