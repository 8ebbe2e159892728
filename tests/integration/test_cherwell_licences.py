"""Concurrent licences of Cherwell portals: every row of the vendor's table through the proxy, a licence held for the session,
freed by log-out and expiry, and whose a record is."""
import itertools
import socket
import threading
import time

import pytest

from cherwell import API, INCIDENT, Caller, settings
from harness import Redis, eventually

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


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), "own-redis"))


@pytest.fixture
def portal(proxy, tmp_path, own_redis):
    def make(name="one", **how):
        gate = proxy(name=name, store=own_redis.url, workers=1, **portal_settings(tmp_path, **how))
        first = Caller(gate, "fence", ALWAYS)  # until a pool has been seen for one lease nobody gets a seat
        eventually(lambda: first.view("x").status == 404, LEASE + 5, "the first seat")
        assert first.logout().status == 200
        eventually(lambda: used(gate) == 0, 5, "it is free")
        return gate

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


@pytest.mark.parametrize("view", ["deny", "free"])
def test_every_row_of_the_table_holds_through_the_proxy(portal, crm, view):
    gate = portal(cherwell={"always_site_view": view}, capacity=1000)
    seen = {}
    for case in combinations():
        user = who(case["right"], case["consume"])
        maker = Caller(gate, user, OPEN)
        own, other = maker.create(), others_record(gate, crm)
        assert maker.logout().status == 200
        caller = Caller(gate, user, ALWAYS if case["always"] else OPEN)
        row, _, outcome = row_of(case)
        if row == "C2" and case["action"] == "view" and view == "free":
            row, outcome = "V1", "free"
        reply = do(caller, case, own, other)
        taken = reply.get("License-Seat") == "concurrent;taken"
        said = {(200, False): "free", (200, True): "consumes"}.get((reply.status, taken))
        if reply.status == 403:
            said = {"operation_not_licensed": "denied_rights", "license_required": "denied_cannot_edit"}.get(reply.json()["reason"])
            assert outcome != "denied_cannot_edit" or "cannot edit this record" in reply.json()["detail"]
        assert said == outcome, (row, case, reply)
        seen[row] = seen.get(row, 0) + 1
        assert caller.logout().status == 200
    assert set(seen) == {row[0] for row in TABLE} | ({"V1"} if view == "free" else set()), seen


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
