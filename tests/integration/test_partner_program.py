"""The partner program (Partnership) of one's own organization only: single records of others are refused, whatever names
them, and the CRM is asked once whose a record is. Lists are cut down by the CRM itself."""
import json
import threading

import pytest

from harness import CUSTOMER, PARTNER, PATIENCE, Standin, bearer, eventually
from http1 import Client
from requests_crm import JSON, json_batch, multipart_batch
from test_directory_sync import Users

ROBOT = "robot"
LOG_IN = "POST /ServiceModel/AuthService.svc/Login"


class Partners:
    """Two organizations of a CRM, and the partner program of each."""

    def __init__(self, crm):
        self.crm = crm
        self.ours, self.theirs = self.add("Account", Name="Acme"), self.add("Account", Name="Best Ltd")
        self.own, self.other = self.add("Partnership", PartnerId=self.ours), self.add("Partnership", PartnerId=self.theirs)

    def add(self, entity, **fields):
        with Client(self.crm.port) as client:
            return client.request("POST", f"/0/odata/{entity}", JSON, json.dumps(fields).encode()).json()["Id"]

    def move(self, record, account):
        with Client(self.crm.port) as client:
            assert client.request("PATCH", f"/0/odata/Partnership({record})", JSON, json.dumps({"PartnerId": account}).encode()).status == 204

    def look_ups(self, record=None):
        """Questions of the service account, of one record or of all."""
        return [target for target in self.crm.targets() if "?$select=Id,PartnerId" in target and (record is None or record in target)]


@pytest.fixture
def partners(start, tmp_path):
    """A CRM of this test's own."""
    return Partners(start(Standin(str(tmp_path), "partners")))


@pytest.fixture
def guarded(proxy, tmp_path, partners):
    """A proxy in front of that CRM which asks it whose a record is."""

    def make(licensing=None, lookup=None, **changes):
        (tmp_path / "robot.password").write_text("secret\n")
        asked = {"url": partners.crm.url + "/0", "user": ROBOT, "password_file": str(tmp_path / "robot.password"),
                 "timeout": f"{5 * PATIENCE}s", **(lookup or {})}
        creatio = {"lookup": {key: value for key, value in asked.items() if value is not None}}
        return proxy(upstream=partners.crm.url, licensing={"main_products": ["crm_bundle"], "creatio": creatio, **(licensing or {})}, **changes)

    return make


def partner(user, account, licenses=(PARTNER,), **claims):
    return bearer(user, licenses=licenses, account=account, **claims)


def odata(record, rest=""):
    return f"/0/odata/Partnership({record}){rest}"


def refused(reply, why="this is another's"):
    assert reply.status == 403, reply
    problem = reply.json()
    assert problem["reason"] == "operation_not_licensed" and "only the records of the user's own organization" in problem["detail"], problem
    assert why in problem["detail"], problem
    return problem


def test_ones_own_record_is_read_and_anothers_is_refused(guarded, partners, user):
    gate = guarded()
    who = partner(user, partners.ours)
    own = gate.call("GET", odata(partners.own), who)
    assert own.status == 200 and own.json()["PartnerId"] == partners.ours
    assert gate.used(who) == 1
    before = partners.crm.counts()["requests"]
    refused(gate.call("GET", odata(partners.other), who))
    assert partners.crm.counts()["requests"] - before == 1, "the question alone reached the CRM"
    assert gate.used(who) == 1, "what is refused costs nothing"
    line = eventually(lambda: next((line for line in gate.access_lines() if line["status"] == 403), None), 5, "the log")
    assert line["reason"] == "operation_not_licensed"
    assert gate.usage(who)["account"] == partners.ours


def test_the_crm_is_asked_once_for_each_record_with_one_log_in(guarded, partners, user):
    gate = guarded()
    for _ in range(3):
        assert gate.call("GET", odata(partners.own), partner(user, partners.ours)).status == 200
        refused(gate.call("GET", odata(partners.other), partner(user, partners.ours)))
        assert gate.call("GET", odata(partners.other), partner(user + "2", partners.theirs)).status == 200, "known for all users"
    assert len(partners.look_ups(partners.own)) == len(partners.look_ups(partners.other)) == 1
    assert partners.crm.targets().count(LOG_IN) == 1
    assert "secret" not in gate.log()


def test_the_crm_is_asked_as_a_client_of_its_identity_service_with_one_token(guarded, partners, user, tmp_path):
    (tmp_path / "client.secret").write_text("secret\n")
    gate = guarded(lookup={"user": None, "password_file": None,
                           "oauth": {"token_url": partners.crm.url + "/connect/token", "client_id": "tollgate",
                                     "client_secret_file": str(tmp_path / "client.secret")}})
    assert gate.call("GET", odata(partners.own), partner(user, partners.ours)).status == 200
    refused(gate.call("GET", odata(partners.other), partner(user, partners.ours)))
    assert sum("/connect/token" in target for target in partners.crm.targets()) == 1
    assert LOG_IN not in partners.crm.targets()


def test_many_calls_at_once_share_one_question(guarded, partners, user):
    gate = guarded()
    partners.crm.settings(latency_ms=300)
    replies = []
    calls = [threading.Thread(target=lambda: replies.append(gate.call("GET", odata(partners.own), partner(user, partners.ours)).status))
             for _ in range(8)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert replies == [200] * 8
    assert len(partners.look_ups(partners.own)) == 1


# Each names one record of Partnership; of one's own it passes, of another it is refused.
def v3(record):
    return "GET", f"/0/ServiceModel/EntityDataService.svc/PartnershipCollection(guid'{record}')", {}, None


def select_query(record, **filter_more):
    comparison = {"filterType": 1, "comparisonType": 3, "isEnabled": True,
                  "leftExpression": {"expressionType": 1, "functionType": 1, "macrosType": 34},
                  "rightExpression": {"expressionType": 2, "parameter": {"dataValueType": 0, "value": record}}, **filter_more}
    return {"rootSchemaName": "Partnership", "operationType": 0, "columns": {"items": {}},
            "filters": {"filterType": 6, "logicalOperation": 0, "items": {"primaryColumnFilter": comparison}}}


def data_service(query, method="SelectQuery"):
    return "POST", f"/0/DataService/json/SyncReply/{method}", JSON, json.dumps(query).encode()


def data_batch(record):
    kind = "Terrasoft.Nui.ServiceModel.DataContract.SelectQuery"
    return data_service({"items": [{"__type": kind, "rootSchemaName": "Case"}, {"__type": kind, **select_query(record)}]}, "BatchQuery")


SHAPES = {
    "odata_key": lambda record: ("GET", odata(record), {}, None),
    "odata_key_in_capitals": lambda record: ("GET", odata(record.upper()), {}, None),
    "odata_key_as_text": lambda record: ("GET", odata(f"%27{record}%27"), {}, None),
    "odata_key_by_name": lambda record: ("GET", odata("Id=" + record), {}, None),
    "odata_key_as_segment": lambda record: ("GET", f"/0/odata/partnership/{record}", {}, None),
    "odata_property": lambda record: ("GET", odata(record, "/PartnerId"), {}, None),
    "odata_reference": lambda record: ("GET", odata(record, "/Partner/$ref"), {}, None),
    "odata_filter": lambda record: ("GET", f"/0/odata/Partnership?$filter=Id%20eq%20{record}", {}, None),
    "odata_filter_in": lambda record: ("GET", f"/0/odata/Partnership?%24filter=Id+in+({record})", {}, None),
    "odata_batch_json": lambda record: ("POST", "/0/odata/$batch", *json_batch([("GET", "Case"), ("GET", f"Partnership({record})")])),
    "odata_batch_multipart": lambda record: ("POST", "/0/odata/$batch", *multipart_batch([("GET", "Case"), ("GET", f"Partnership({record})")])),
    "odata3_key": v3,
    "data_service": lambda record: data_service(select_query(record)),
    "data_service_batch": data_batch,
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_whatever_names_a_record(guarded, partners, user, shape):
    gate = guarded()
    who = partner(user, partners.ours)
    method, target, headers, body = SHAPES[shape](partners.own)
    reply = gate.call(method, target, {**who, **headers}, body)
    assert reply.get("Content-Type") != "application/problem+json", reply
    assert len(partners.look_ups(partners.own)) == 1
    method, target, headers, body = SHAPES[shape](partners.other)
    detail = refused(gate.call(method, target, {**who, **headers}, body))["detail"]
    assert ("batch[1]" in detail) == ("batch" in shape), detail


# The rule as a table: of what organization the record is, what is done, who does it.
ROWS = {
    "own-read": ("own", "GET", "portal", "ok"),
    "own-edit": ("own", "PATCH", "portal", "operation_not_licensed"),
    "own-delete": ("own", "DELETE", "portal", "operation_not_licensed"),
    "other-read": ("other", "GET", "portal", "operation_not_licensed"),
    "other-edit": ("other", "PATCH", "portal", "operation_not_licensed"),
    "unknown-read": ("unknown", "GET", "portal", "operation_not_licensed"),
    "list-read": ("list", "GET", "portal", "ok"),
    "own-read-by-staff": ("own", "GET", "staff", "ok"),
    "other-read-by-staff": ("other", "GET", "staff", "ok"),
    "other-edit-by-staff": ("other", "PATCH", "staff", "ok"),
}


@pytest.mark.parametrize("row", list(ROWS))
@pytest.mark.parametrize("system", ["bpmonline", "creatio_partner"])
def test_every_row_of_the_rule(guarded, partners, user, system, row):
    record, method, user_type, wanted = ROWS[row]
    gate = guarded({"system": system})
    target = {"own": odata(partners.own), "other": odata(partners.other), "list": "/0/odata/Partnership",
              "unknown": odata("405947d0-2ffb-4ded-8675-0475f19f5a81")}[record]
    reply = gate.call(method, target, {**partner(user, partners.ours, user_type=user_type), **JSON}, b"{}" if method == "PATCH" else None)
    problem = reply.json() if reply.get("Content-Type") == "application/problem+json" else {"reason": "ok"}
    assert problem["reason"] == wanted, reply
    if wanted == "ok":
        assert reply.status in (200, 204)
    if row == "own-edit":
        assert "it grants read" in problem["detail"], "read only, not somebody else's"
    if user_type == "staff" or method != "GET" or record == "list":
        assert not partners.look_ups(), "the answer would change nothing"


def test_a_list_of_another_organization_is_refused_and_other_lists_are_the_crms(guarded, partners, user):
    gate = guarded()
    who = partner(user, partners.ours)
    by_owner = "/0/odata/Partnership?$filter=PartnerId%20eq%20"
    assert gate.call("GET", by_owner + partners.ours, who).status == 200
    refused(gate.call("GET", by_owner + partners.theirs, who))
    assert gate.call("GET", f"/0/odata/Case({partners.other})", who).status == 404, "another section is not asked about"
    assert not partners.look_ups()


def test_a_record_that_cannot_be_told_is_refused(guarded, partners, user):
    gate = guarded()
    for key in ("1", "%27x%27", "Name=%27x%27", "@p"):
        refused(gate.call("GET", odata(key), partner(user, partners.ours)), "it could not be found out whose this one is")
    assert not partners.look_ups()


def test_whose_account_is_not_known_reads_no_single_record(guarded, partners, user):
    gate = guarded()
    for account in ("", "Acme", "00000000-0000-0000-0000-000000000000"):
        refused(gate.call("GET", odata(partners.own), partner(user, account)), "it is not known which account that is")
    assert gate.call("GET", "/0/odata/Partnership", partner(user, "")).status == 200, "a list"
    assert not partners.look_ups()


def test_other_portals_have_no_partner_program_whoever_owns_it(guarded, partners, user):
    gate = guarded({"main_products": ["crm_bundle", "service_enterprise"]})
    reply = gate.call("GET", odata(partners.own), partner(user, partners.ours, licenses=(CUSTOMER,)))
    assert (reply.status, reply.json()["reason"]) == (403, "section_not_licensed")
    assert not partners.look_ups()


def test_without_an_answer_the_call_is_refused_until_there_is_one(guarded, partners, user, start, tmp_path):
    asked = start(Standin(str(tmp_path), "asked"))
    gate = guarded(lookup={"url": asked.url + "/0"})
    who = partner(user, partners.ours)
    asked.stop()
    refused(gate.call("GET", odata(partners.own), who), "it could not be found out whose this one is")
    assert gate.used(who) == 0
    assert "look-up of a record's owner at" in gate.log()
    start(asked)
    with Client(asked.port) as client:
        client.request("POST", "/0/odata/Partnership", JSON, json.dumps({"Id": partners.own, "PartnerId": partners.ours}).encode())
    eventually(lambda: gate.call("GET", odata(partners.own), who).status == 200, 10 * PATIENCE, "the CRM is back")


def test_a_session_of_the_service_account_that_ends_is_opened_anew(guarded, partners, user):
    gate = guarded()
    assert gate.call("GET", odata(partners.own), partner(user, partners.ours)).status == 200
    with Client(partners.crm.port) as client:
        client.request("POST", "/_standin/expire", body=b"")
    refused(gate.call("GET", odata(partners.other), partner(user, partners.ours)))
    assert partners.crm.targets().count(LOG_IN) == 2


def test_a_record_that_changes_hands_is_asked_for_again(guarded, partners, user):
    gate = guarded()
    who, staff = partner(user, partners.ours), bearer(user + "-staff", user_type="staff")
    assert gate.call("GET", odata(partners.own), who).status == 200
    moved = gate.call("PATCH", odata(partners.own), {**staff, **JSON}, json.dumps({"PartnerId": partners.theirs}).encode())
    assert moved.status == 204
    refused(gate.call("GET", odata(partners.own), who))
    assert len(partners.look_ups(partners.own)) == 2


def test_what_is_remembered_gets_old(guarded, partners, user):
    creatio = {"record_age": "1s"}
    gate = guarded()
    gate.write_config(licensing={"creatio": {**gate.settings["licensing"]["creatio"], **creatio}})
    gate.reload()
    who = partner(user, partners.ours)
    assert gate.call("GET", odata(partners.own), who).status == 200
    partners.move(partners.own, partners.theirs)
    eventually(lambda: gate.call("GET", odata(partners.own), who).status == 403, 10 * PATIENCE, "the CRM is asked again")


def test_without_a_look_up_the_rule_is_the_crms_own(proxy, partners, user):
    gate = proxy(upstream=partners.crm.url, licensing={"main_products": ["crm_bundle"]})
    assert gate.call("GET", odata(partners.other), partner(user, partners.ours)).status == 200
    assert gate.call("GET", odata(partners.other), partner(user, "")).status == 200
    assert not partners.look_ups()
    checked = gate.command_run("check", "-c", gate.config_path)
    assert checked.returncode == 0 and "note: Partner program: " in checked.stderr and "left to the CRM" in checked.stderr


# ---------------------------------------------------------------- whose account a user is of


def test_the_account_of_the_operators_file_wins_over_the_token(guarded, partners, tmp_path):
    listed = tmp_path / "users.csv"
    listed.write_text(f"user,license,account\nann,{PARTNER},{partners.ours.upper()}\nbob,{PARTNER},\n")
    gate = guarded({"directory_file": str(listed)})
    assert gate.call("GET", odata(partners.own), partner("ann", partners.theirs)).status == 200
    refused(gate.call("GET", odata(partners.other), partner("ann", partners.theirs)))
    assert gate.call("GET", odata(partners.other), partner("bob", partners.theirs)).status == 200, "the file does not say"


def test_the_account_that_the_crm_says(guarded, partners, tmp_path):
    users = Users(partners.crm)
    users.accounts = {"Acme": partners.ours, "Best Ltd": partners.theirs}
    users.add("Supervisor", licenses=(), ConnectionType=0)
    users.add("ann", licenses=(PARTNER,))
    users.add("bob", licenses=(PARTNER,), account="Best Ltd")
    sync = {"url": partners.crm.url + "/0", "user": ROBOT, "password_file": str(tmp_path / "robot.password"), "interval": "1h",
            "timeout": f"{2 * PATIENCE}s"}
    gate = guarded(identity={"directory": {"sync": sync}})
    assert gate.call("GET", odata(partners.own), partner("ann", partners.theirs)).status == 200, "whatever the token says"
    refused(gate.call("GET", odata(partners.other), partner("ann", partners.theirs)))
    assert gate.call("GET", odata(partners.other), bearer("BOB", licenses=())).status == 200
    shown = json.loads(gate.command_run("directory", "show", "ann", "-o", "json", "-c", gate.config_path).stdout)
    assert (shown["counts"]["account"], shown["from"]["account"]) == (partners.ours, "crm")
    kept = json.loads((tmp_path / "tollgate" / "journal" / "crm-users.json").read_text())
    assert {row["user"]: row.get("account") for row in kept["users"]}["bob"] == partners.theirs


# ---------------------------------------------------------------- what the operator is told


def test_doctor_asks_as_the_proxy_would(guarded, partners, tmp_path):
    gate = guarded()

    def licences():
        told = gate.command_run("doctor", "-c", gate.config_path, "-o", "json")
        return [(one["level"], one["text"]) for one in json.loads(told.stdout)["findings"] if one["subject"] == "licences"]

    assert licences() == [("ok", f"licensing.creatio.lookup: {partners.crm.url}/0: the account may read Partnership.PartnerId")]
    (tmp_path / "robot.password").write_text("wrong\n")
    (level, text), = licences()
    assert level == "problem" and 'does not let the user "robot" in' in text and "wrong" not in text


def test_explain_names_the_rule_and_whose_the_record_is(guarded, partners):
    gate = guarded()

    def explain(*more):
        told = gate.command_run("explain", "GET", odata(partners.own), "-c", gate.config_path, "--product", "partner", *more)
        assert told.returncode == 0, told.stderr
        return told.stdout

    text = explain("--account", partners.ours, "--owner", partners.ours)
    assert "decision  allow" in text and "partner_program: records of the user's own organization only (PartnerId)" in text
    assert f"Partnership/{partners.own}: the user's own organization's" in text
    text = explain("--account", partners.ours, "--owner", partners.theirs)
    assert "operation_not_licensed" in text and "another organization's" in text
    assert "not asked here whose it is" in explain("--account", partners.ours)
    assert "his account is not known" in explain()
    told = json.loads(explain("--account", partners.ours, "--owner", partners.theirs, "-o", "json"))
    assert told["uses"][0]["record"] == f"Partnership/{partners.own}" and told["uses"][0]["owner"] == "other"
    assert told["licence"]["rows"][0]["own_organization"] == {"column": "PartnerId", "enforced_by": "proxy"}
    assert gate.command_run("explain", "GET", "/0/odata/Case", "-c", gate.config_path, "--owner", "Acme").returncode == 2
