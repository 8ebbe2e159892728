"""Concurrent licences of Cherwell portals: every row of the vendor's table through the proxy, a licence held for the session,
freed by log-out and expiry, and whose a record is."""
import itertools
import json
import random
import signal
import socket
import threading
import time

import pytest

from cherwell import API, INCIDENT, Caller, settings
from harness import PATIENCE, Proxy, Redis, eventually
from http1 import Closed

LEASE = 1
ALWAYS, OPEN = "Always", "Open"
RIGHTS = list(itertools.product((False, True), repeat=2))  # has_security_right, may_consume_licence
KINDS = ("normal", "journal_entry", "rating")
NO_LIMIT = [{"name": "daily", "limit": 1000000, "window": "24h", "per": ["user"], "on": "licensed"}]

# id, {what it asks for}, outcome: the first that fits, as the vendor's page on licence consumption has it.
TABLE = [
    ("C1", dict(record="other", right=False), "denied_rights"),
    ("C2", dict(always=True, consume=False), "denied_cannot_edit"),
    ("C3", dict(always=True, consume=True), "consumes"),
    ("C4", dict(always=False, record="own", action="view"), "free"),
    ("C5", dict(always=False, record="own", action="create"), "free"),
    ("C6", dict(always=False, record="own", action="edit"), "free"),
    ("C7", dict(always=False, record="other", action="view", right=True), "free"),
    ("C8", dict(always=False, record="other", action="edit", right=True, consume=True), "consumes"),
    ("C9", dict(always=False, record="other", action="edit", right=True, consume=False), "denied_cannot_edit"),
    ("C10", dict(always=False, action="one_step", alters=False), "free"),
    ("C11", dict(always=False, record="own", action="one_step", alters=True), "free"),
    ("C12", dict(always=False, record="other", action="one_step", alters=True, kind="journal_entry", right=True), "free"),
    ("C13", dict(always=False, record="other", action="one_step", alters=True, kind="rating", field=True, right=True), "free"),
    ("C14", dict(always=False, record="other", action="one_step", alters=True, kind="rating", field=False, right=True, consume=True), "consumes"),
    ("C15", dict(always=False, record="other", action="one_step", alters=True, kind="rating", field=False, right=True, consume=False),
     "denied_cannot_edit"),
    ("C16", dict(always=False, record="other", action="one_step", alters=True, kind="normal", right=True, consume=True), "consumes"),
    ("C17", dict(always=False, record="other", action="one_step", alters=True, kind="normal", right=True, consume=False), "denied_cannot_edit"),
]


def combinations():
    for always, record, action, right, consume in itertools.product((False, True), ("own", "other"), ("view", "create", "edit", "delete", "one_step"),
                                                                    (False, True), (False, True)):
        if action == "create" and record == "other":
            continue  # what a user makes is his own
        steps = itertools.product((False, True), KINDS, (False, True)) if action == "one_step" else [(False, "normal", False)]
        for alters, kind, field in steps:
            yield dict(always=always, record=record, action=action, right=right, consume=consume, alters=alters, kind=kind, field=field)


def row_of(case):
    asked = {**case, "action": "edit" if case["action"] == "delete" else case["action"]}
    return next(row for row in TABLE if all(asked[name] == wanted for name, wanted in row[1].items()))


def step_name(alters, kind, field):
    return f"step-{alters}-{kind}-{field}".lower()


def who(right, consume):
    return f"user-{right}-{consume}".lower()


def yes(flag):
    return "yes" if flag else "no"


USERS = "user,customer,security_right,consume_license,user_type\n" + "".join(
    f"{who(*rights)},cust-{who(*rights)},{yes(rights[0])},{yes(rights[1])},\n" for rights in RIGHTS) + "boss,,,,staff\n"


def portal_settings(folder, capacity=5, cherwell=None, users=USERS, idle="60s", **sessions):
    made = settings(folder, users=users, licensing={
        "system": "cherwell", "seat_lease": f"{LEASE}s", "concurrent_seats": {"capacity": capacity, "idle": idle},
        "cherwell": {"always_use_sites": [ALWAYS.upper()],
                     "one_steps": {step_name(*step): {"alters_data": step[0], "kind": step[1], "rating_field": step[2]}
                                   for step in itertools.product((False, True), KINDS, (False, True))}, **(cherwell or {})}}, **sessions)
    return {**made, "quotas": NO_LIMIT}


def begin(gate):
    """Until a pool has been seen for one lease nobody gets a seat."""
    first = Caller(gate, "fence", ALWAYS)
    eventually(lambda: first.view("x").status == 404, LEASE + 5, "the first seat")
    assert first.logout().status == 200
    eventually(lambda: used(gate) == 0, 5, "it is free")
    return gate


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), "own-redis"))


@pytest.fixture
def portal(proxy, tmp_path, own_redis):
    def make(name="one", workers=1, **how):
        gate = proxy(name=name, store=own_redis.url, workers=workers, **portal_settings(tmp_path, **how))
        return begin(gate)

    return make


def used(gate):
    reply = gate.admin("/api/v1/licenses", with_token=True)
    assert reply.status == 200, reply
    return next(product["used"] for product in reply.json() if product["id"] == "concurrent")


def others_record(gate, crm, name="other-maker"):
    """A record of somebody whose log-in did not pass here: the proxy has never seen it."""
    return Caller(crm_gate(crm), name).create()


class crm_gate:
    """The stand-in CRM itself, called as a proxy is."""

    def __init__(self, crm):
        self.crm = crm

    def call(self, method, target, headers=(), body=None, **kwargs):
        with self.crm._client() as client:
            return client.request(method, target, headers, body, **kwargs)


def do(caller, case, own, other):
    record = own if case["record"] == "own" else other
    if case["action"] == "view":
        return caller.view(record)
    if case["action"] == "create":
        return caller.save()
    if case["action"] == "edit":
        return caller.save(record, Details="x")
    if case["action"] == "delete":
        return caller.delete(record)
    return caller.run(step_name(case["alters"], case["kind"], case["field"]), record)


def rows_of(view):
    """Row -> (outcome, the cases that it decides)."""
    rows = {}
    for case in combinations():
        row, _, outcome = row_of(case)
        if row == "C2" and case["action"] == "view" and view == "free":
            row, outcome = "V1", "free"
        rows.setdefault(row, (outcome, []))[1].append(case)
    return rows


ROWS = [(view, row) for view in ("deny", "free") for row in rows_of(view)]


@pytest.fixture(scope="module")
def gates_of_the_table(shared, session_folder, crm_process, tmp_path_factory):
    """One proxy for each way in which a site may treat views, for all rows."""
    made = {}

    def gate(view):
        if view not in made:
            folder = tmp_path_factory.mktemp("table")
            store = shared(Redis(str(folder), "table-redis"))
            made[view] = shared(Proxy(str(folder), crm_process.url, store.url, f"table-{view}",
                                      {"workers": 1, **portal_settings(folder, capacity=1000, cherwell={"always_site_view": view})}))
            begin(made[view])
        return made[view]

    return gate


@pytest.mark.parametrize("view, row", ROWS, ids=[f"{row}-always_site_view_{view}" for view, row in ROWS])
def test_every_row_of_the_table_holds_through_the_proxy(gates_of_the_table, crm, view, row):
    gate = gates_of_the_table(view)
    outcome, cases = rows_of(view)[row]
    for case in cases:
        user = who(case["right"], case["consume"])
        maker = Caller(gate, user, OPEN)
        own, other = maker.create(), others_record(gate, crm)
        assert maker.logout().status == 200
        caller = Caller(gate, user, ALWAYS if case["always"] else OPEN)
        reply = do(caller, case, own, other)
        taken = reply.get("License-Seat") == "concurrent;taken"
        said = {(200, False): "free", (200, True): "consumes"}.get((reply.status, taken))
        if reply.status == 403:
            said = {"operation_not_licensed": "denied_rights", "license_required": "denied_cannot_edit"}.get(reply.json()["reason"])
            assert outcome != "denied_cannot_edit" or "cannot edit this record" in reply.json()["detail"]
        assert said == outcome, (row, case, reply)
        assert caller.logout().status == 200


# ---------------------------------------------------------------- how the vendor's page is read where it is silent

JOURNAL = "9a" * 16


def journal_entry(caller, record, child="", object_id=JOURNAL):
    return caller.call("POST", "/saverelatedbusinessobject", {"parentBusObId": INCIDENT, "parentBusObRecId": record, "relationshipId": "r",
                                                              "busObId": object_id, "busObRecId": child, "fields": []})


def test_V3_a_delete_is_an_edit(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    assert caller.delete(caller.create()).get("License-Seat") is None, "his own"
    assert caller.delete(others_record(gate, crm)).get("License-Seat") == "concurrent;taken"


@pytest.mark.parametrize("listed", [False, True])
def test_V4_a_journal_entry_that_is_saved_directly_is_an_edit_unless_its_object_is_listed(portal, crm, listed):
    gate = portal(cherwell={"journal_objects": [JOURNAL.upper()]} if listed else {})
    other = others_record(gate, crm)
    poor = Caller(gate, who(True, False), OPEN)
    reply = journal_entry(poor, other)
    assert reply.status == 200 if listed else reply.json()["reason"] == "license_required", reply
    rich = Caller(gate, who(True, True), OPEN)
    assert journal_entry(rich, other).get("License-Seat") == (None if listed else "concurrent;taken")
    if not listed:
        return
    assert journal_entry(Caller(gate, who(False, True), OPEN), other).json()["reason"] == "operation_not_licensed"
    assert journal_entry(poor, other, child="e" * 42).json()["reason"] == "license_required", "an entry that is there is edited"
    assert journal_entry(poor, other, object_id="ab" * 16).json()["reason"] == "license_required", "another detail is no journal"
    assert used(gate) == 0
    assert journal_entry(Caller(gate, who(True, True), ALWAYS), other).get("License-Seat") == "concurrent;taken", "V5: such a site comes first"


def edit_others(caller, crm):
    return caller.save(others_record(caller.gate, crm), Details="x")


def test_a_licence_is_taken_once_a_session_and_the_caller_is_told(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    assert caller.call("GET", "/serviceinfo").get("License-Seat") is None
    assert gate.usage(caller.auth)["seats"][0]["held"] is False
    assert edit_others(caller, crm).get("License-Seat") == "concurrent;taken"
    assert edit_others(caller, crm).get("License-Seat") is None, "he has it"
    again = Caller(gate, who(True, True), OPEN)
    assert edit_others(again, crm).get("License-Seat") is None, "one a user, whatever the number of clients"
    seat = gate.usage(caller.auth)["seats"][0]
    assert seat["held"] and 1100 < seat["seconds_left"] <= 1199, "for the rest of the session"
    assert used(gate) == 1


def test_a_log_out_frees_it_for_the_next_one(portal, crm):
    gate = portal(capacity=1)
    ann, bob = Caller(gate, who(True, True), OPEN), Caller(gate, "bob", OPEN)
    assert edit_others(ann, crm).status == 200
    refused = edit_others(bob, crm)
    assert refused.status == 429 and refused.json()["reason"] == "concurrent_licenses_exhausted"
    assert 1100 < int(refused.get("Retry-After")) <= 1200, "when the earliest session ends"
    assert bob.save().status == 200, "his own need none"
    assert ann.logout().status == 200
    eventually(lambda: edit_others(bob, crm).status == 200, 11, "it is his")


def test_a_log_out_of_one_client_leaves_the_licence_to_the_others(portal, crm):
    one, two = portal("one", capacity=1), portal("two", capacity=1, workers=2)
    other = others_record(one, crm)
    desk, phone, bob = Caller(one, "ann", OPEN), Caller(two, "Ann", OPEN), Caller(one, "bob", OPEN)
    assert desk.save(other, Details="x").get("License-Seat") == "concurrent;taken"
    assert phone.save(other, Details="x").status == 200
    assert phone.save(other, Details="x").get("License-Seat") is None, "one a user"
    assert desk.logout().status == 200
    over = time.monotonic() + 2 * LEASE
    while time.monotonic() < over:
        assert bob.save(other, Details="x").status == 429, "the phone has it"
        assert phone.save(other, Details="x").get("License-Seat") is None
        time.sleep(0.1)
    assert used(one) == 1
    assert phone.logout().status == 200
    eventually(lambda: used(one) == 0, 5, "the last one is gone")
    eventually(lambda: bob.save(other, Details="x").status == 200, 11, "it is his")


def test_a_client_that_goes_without_a_word_holds_the_licence_until_its_session_ends(portal, crm):
    gate = portal(capacity=1)
    other = others_record(gate, crm)
    desk, phone = Caller(gate, "ann", OPEN), Caller(gate, "ann", OPEN, headers={"X-Standin-Lifetime": "4"})
    began = time.monotonic()
    for caller in (desk, phone):
        assert caller.save(other, Details="x").status == 200
    assert desk.logout().status == 200
    assert used(gate) == 1
    eventually(lambda: used(gate) == 0, 8, "not for as long as the desk's session would have lasted")
    assert 3 < time.monotonic() - began


def test_after_the_last_log_out_no_proxy_takes_the_user_for_its_holder(portal, crm):
    one, two = portal("one", capacity=1), portal("two", capacity=1)
    other = others_record(one, crm)
    ann, bob = Caller(one, "ann", OPEN), Caller(one, "bob", OPEN)
    for gate in (one, two):
        ann.gate = gate
        assert ann.save(other, Details="x").status == 200
    ann.gate = one
    assert ann.logout().status == 200
    eventually(lambda: bob.save(other, Details="x").status == 200, 11, "it is his")
    again = Caller(two, "ann", OPEN)
    refused = again.save(other, Details="x")
    assert refused.status == 429 and refused.json()["reason"] == "concurrent_licenses_exhausted", "two knew her for the holder"


def test_a_session_that_expires_frees_it(portal, crm):
    gate = portal(capacity=1)
    ann, bob = Caller(gate, who(True, True), OPEN, headers={"X-Standin-Lifetime": "3"}), Caller(gate, "bob", OPEN)
    began = time.monotonic()
    assert edit_others(ann, crm).status == 200
    refused = edit_others(bob, crm)
    assert refused.status == 429 and int(refused.get("Retry-After")) <= 3
    eventually(lambda: edit_others(bob, crm).status == 200, 6, "it is his")
    assert time.monotonic() - began > 2, "not before it expired"


def test_a_refresh_keeps_it(portal, crm):
    gate = portal(capacity=1)
    ann, bob = Caller(gate, who(True, True), OPEN, headers={"X-Standin-Lifetime": "3"}), Caller(gate, "bob", OPEN)
    assert edit_others(ann, crm).status == 200
    ann.take(ann.refresh())
    assert edit_others(ann, crm).status == 200
    over = time.monotonic() + 4
    while time.monotonic() < over:
        assert edit_others(bob, crm).status == 429
        assert edit_others(ann, crm).get("License-Seat") is None
        time.sleep(0.2)


def test_who_may_not_take_one_is_told_that_he_cannot_edit(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, False), OPEN)
    reply = edit_others(caller, crm)
    assert reply.status == 403 and reply.json()["reason"] == "license_required"
    assert "you cannot edit this record" in reply.json()["detail"]
    assert used(gate) == 0


def test_staff_needs_none(portal, crm):
    gate = portal(capacity=1)
    assert edit_others(Caller(gate, "boss"), crm).get("License-Seat") is None
    assert used(gate) == 0


def test_whose_a_record_is_is_learned_from_replies(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    outside = Caller(crm_gate(crm), who(True, True), OPEN)
    seen, searched, unseen = outside.create(), outside.create(object_id="abc" + "0" * 29), outside.create()
    assert caller.view(seen).status == 200
    assert caller.call("POST", "/getsearchresults", {"busObId": "abc" + "0" * 29}).status == 200
    assert caller.save(seen, Details="x").get("License-Seat") is None, "his own: the reply said so"
    assert caller.save(searched, object_id="abc" + "0" * 29, Details="x").get("License-Seat") is None
    assert used(gate) == 0
    assert caller.save(unseen, Details="x").get("License-Seat") == "concurrent;taken", "unknown is somebody else's"


def test_a_record_that_changes_hands_is_not_believed_any_more(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    record = caller.create()
    assert caller.save(record, CustomerRecID="cust-bob").get("License-Seat") is None
    assert caller.save(record, Details="x").get("License-Seat") == "concurrent;taken"


def test_an_owner_is_believed_for_a_while_only(portal, crm):
    gate = portal(cherwell={"record_age": "1s"})
    caller = Caller(gate, who(True, True), OPEN)
    record = caller.create()
    assert caller.save(record, Details="x").get("License-Seat") is None
    time.sleep(1.1)
    assert caller.save(record, Details="x").get("License-Seat") == "concurrent;taken"


def test_two_names_of_different_records_are_somebody_elses(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    own, other = caller.create(), others_record(gate, crm)
    public_id = caller.view(own).json()["busObPublicId"]
    body = {"busObId": INCIDENT, "busObRecId": other, "busObPublicId": public_id, "fields": [], "persist": True}
    assert caller.call("POST", "/savebusinessobject", {**body, "busObRecId": own}).get("License-Seat") is None, "both are of his record"
    assert caller.call("POST", "/savebusinessobject", body).get("License-Seat") == "concurrent;taken"


def test_a_batch_with_one_record_of_others_takes_one(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    own, other = caller.create(), others_record(gate, crm)
    def batch(*records):
        return caller.call("POST", "/savebusinessobjectbatch",
                           {"saveRequests": [{"busObId": INCIDENT, "busObRecId": record, "fields": []} for record in records]})
    assert batch(own, own).get("License-Seat") is None
    assert batch(own, other).get("License-Seat") == "concurrent;taken"


def test_records_made_by_a_batch_are_the_callers_own(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    other = others_record(gate, crm)

    def batch(*records):
        return caller.call("POST", "/savebusinessobjectbatch",
                           {"saveRequests": [{"busObId": INCIDENT, "busObRecId": record, "fields": []} for record in records]})

    made = [one["busObRecId"] for one in batch("", "", "").json()["responses"]]
    for record in made:
        assert caller.save(record, Details="x").get("License-Seat") is None, "he made it"
    assert used(gate) == 0
    mixed = batch("", other, "f" * 42, "")
    assert mixed.get("License-Seat") == "concurrent;taken"
    first, _, missing, last = mixed.json()["responses"]
    assert missing["hasError"]
    poor = Caller(gate, "bob", OPEN)
    for record in (first["busObRecId"], last["busObRecId"]):
        assert caller.save(record, Details="x").status == 200
    assert poor.save(first["busObRecId"], Details="x").get("License-Seat") == "concurrent;taken", "it is another's"


def test_a_one_step_without_a_record_alters_unless_it_is_declared(portal, crm):
    gate = portal()
    caller = Caller(gate, who(True, True), OPEN)
    key = "DefType%3AOneStepDef%23Scope%3AGlobal%23Id%3A"
    assert caller.call("GET", "/runonestepaction/standinkey/" + key + step_name(False, "normal", False)).get("License-Seat") is None
    assert caller.call("GET", "/runonestepaction/standinkey/" + key + "944ab").get("License-Seat") == "concurrent;taken"


# ---------------------------------------------------------------- asking the CRM

@pytest.fixture
def asking(portal, crm, tmp_path):
    """A portal that asks the CRM with an account of its own."""
    (tmp_path / "service.password").write_text("secret")

    def make(url=None, timeout="2s", **more):
        return portal(cherwell={"lookup": {"url": url or crm.url + "/CherwellAPI", "user": "service", "client_id": "client", "timeout": timeout,
                                           "password_file": str(tmp_path / "service.password")}}, **more)

    return make


def asked(crm):
    return [target for target in crm.targets() if "GET /CherwellAPI/api/V1/getbusinessobject/" in target]


def test_the_crm_is_asked_once_whose_an_unknown_record_is(asking, crm):
    gate = asking()
    outside = Caller(crm_gate(crm), who(True, False), OPEN)
    mine, theirs, unseen = outside.create(), others_record(gate, crm), outside.create()
    caller = Caller(gate, who(True, False), OPEN)
    crm.reset()
    for _ in range(3):
        assert caller.save(mine, Details="x").status == 200, "he has no right to take a licence, and needs none"
        assert caller.save(theirs, Details="x").json()["reason"] == "license_required"
        assert caller.save("no-such-record", Details="x").status == 403, "nobody's is not his"
    assert len(asked(crm)) == 3, "an answer is remembered, and that there is none"
    assert caller.call("GET", f"/getbusinessobjectattachments/busobid/{INCIDENT}/busobrecid/{unseen}").status == 200
    assert len(asked(crm)) == 3, "a view is free whosever it is"


def test_calls_that_ask_for_one_record_at_a_time_are_one_look_up(asking, crm):
    gate = asking()
    record = Caller(crm_gate(crm), who(True, False), OPEN).create()
    caller = Caller(gate, who(True, False), OPEN)
    assert caller.save(others_record(gate, crm), Details="x").status == 403, "the account has its token"
    crm.reset()
    crm.settings(latency_ms=300)
    statuses = []
    lanes = [threading.Thread(target=lambda: statuses.append(caller.save(record, Details="x").status)) for _ in range(8)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    crm.settings(latency_ms=0)
    assert statuses == [200] * 8
    assert len(asked(crm)) == 1


def test_a_look_up_that_fails_takes_no_call_down(asking, crm):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        gate = asking(url=f"http://127.0.0.1:{silent.getsockname()[1]}/CherwellAPI", timeout="300ms")
        caller = Caller(gate, who(True, True), OPEN)
        record, began = others_record(gate, crm), time.monotonic()
        assert caller.save(record, Details="x").get("License-Seat") == "concurrent;taken", "unknown is somebody else's"
        assert time.monotonic() - began >= 0.3
        began = time.monotonic()
        for _ in range(5):
            assert caller.save(record, Details="x").status == 200
        assert "look-up of a record's owner" in gate.log()
        assert caller.call("GET", "/serviceinfo").status == 200


def test_the_account_logs_in_again_when_its_token_has_ended(asking, crm):
    gate = asking()
    outside = Caller(crm_gate(crm), who(True, False), OPEN)
    caller = Caller(gate, who(True, False), OPEN)
    assert caller.save(outside.create(), Details="x").status == 200
    with crm._client() as client:
        assert client.request("POST", "/_standin/expire", body=b"").status == 204
    outside, caller = Caller(crm_gate(crm), who(True, False), OPEN), Caller(gate, who(True, False), OPEN)
    assert caller.save(outside.create(), Details="x").status == 200


def test_doctor_logs_in_where_the_proxy_would_ask(asking, crm, tmp_path):
    gate = asking()

    def licences():
        findings = json.loads(gate.command_run("doctor", "-c", gate.config_path, "-o", "json").stdout)["findings"]
        return [(finding["level"], finding["text"]) for finding in findings if finding["subject"] == "licences"]

    crm.reset()
    assert licences() == [("ok", f"licensing.cherwell.lookup: {crm.url}/CherwellAPI: the account gets a token")]
    assert not asked(crm), "no record is read"
    (tmp_path / "service.password").write_text("wrong")
    (level, text), = licences()
    assert level == "problem" and "no token: answered 400" in text, text


# ---------------------------------------------------------------- many at once

class Worker(threading.Thread):
    """A customer who logs in, edits records of others, and logs out or just goes; through any proxy."""

    LIFETIME = 5

    def __init__(self, name, gates, record, until, seed):
        super().__init__()
        self.user, self.gates, self.record, self.until, self.random = name, gates, record, until, random.Random(seed)
        self.held, self.statuses, self.wrong = [], {}, []

    def run(self):
        time.sleep(self.random.uniform(0, 2))
        while time.monotonic() < self.until:
            try:
                self.stay()
            except (OSError, Closed, AssertionError) as error:
                if isinstance(error, AssertionError) and "401" not in str(error) and "50" not in str(error):
                    self.wrong.append(str(error))
            time.sleep(self.random.uniform(0.1, 1.5))

    def stay(self):
        asked = time.monotonic()
        caller = Caller(self.random.choice(self.gates), self.user, OPEN, headers={"X-Standin-Lifetime": str(self.LIFETIME)})
        ends, since = asked + self.LIFETIME - 0.1, None
        try:
            for _ in range(self.random.randint(1, 8)):
                caller.gate = self.random.choice(self.gates)
                reply = caller.save(self.record, Details="x")
                self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
                if reply.status == 200 and since is None:
                    since = time.monotonic()
                if reply.status == 429 and since is not None:
                    self.wrong.append(f"{self.user} lost the licence of a session that goes on")
                if reply.status != 200:
                    break
                time.sleep(self.random.uniform(0.1, 0.5))
        finally:
            leaves = self.random.random() < 0.7
            ends = min(ends, time.monotonic()) if leaves else ends
            if since is not None and since < ends:
                self.held.append((since, ends))
        if leaves:
            caller.gate = self.random.choice(self.gates)
            caller.logout()


def most_held(workers):
    edges = []
    for worker in workers:
        joined = []  # one a user: a session that was left open goes on beside the next one
        for start, end in sorted(worker.held):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        for start, end in joined:
            edges += [(start, 1), (end, -1)]
    return max(itertools.accumulate(step for _, step in sorted(edges)))


def test_a_hundred_customers_contend_for_forty_licences_while_proxies_are_killed(portal, crm):
    gates = [portal(name, capacity=40) for name in ("one", "two", "three")]
    record = others_record(gates[0], crm)
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice, until = random.Random(seed), time.monotonic() + 20
    workers = [Worker(f"customer{number}", gates, record, until, seed + number) for number in range(100)]
    for worker in workers:
        worker.start()
    kills = 0
    while time.monotonic() < until - 4:
        time.sleep(dice.uniform(0.5, 2))
        victim = dice.choice(gates)
        victim.signal(signal.SIGKILL)
        victim.child.wait(10)
        kills += 1
        time.sleep(dice.uniform(0, 1))
        victim.launch()
        victim.wait_ready()
    for worker in workers:
        worker.join()
    over, statuses = time.monotonic(), {}
    for worker in workers:
        for status, count in worker.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    most = most_held(workers)
    print("statuses", statuses, "kills", kills, "most", most)
    assert [text for worker in workers for text in worker.wrong] == []
    assert 30 <= most <= 40, most
    assert kills >= 3 and statuses[429] > 20 and statuses[200] > 200, (kills, statuses)
    eventually(lambda: used(gates[0]) == 0, Worker.LIFETIME + 3, "all licences are free")
    assert time.monotonic() - over < (Worker.LIFETIME + 2) * PATIENCE
