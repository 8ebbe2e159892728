"""Seats of Zoho's portal users: taken by who invites them, given back when the CRM refuses, freed when they are removed; the
vendor's decision table row by row."""
import itertools
import json
import signal
import socket
import threading

import pytest

from harness import Redis, bearer, eventually

_ids = itertools.count(554023000000000001)
STAFF = bearer("boss", user_type="staff")
CLIENT_TYPE, PARTNER_TYPE = "1947281000000470169", "1947281000000470200"
USERS = f"/crm/v8/settings/portals/shop/user_type/{CLIENT_TYPE}/users"


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), "own-redis"))


@pytest.fixture
def portal(proxy, own_redis):
    """portal(name, purchased=..., client_users_at_release=...): a proxy on a Redis of this test's own."""

    def make(name="one", upstreams=None, **seats):
        return proxy(name=name, store=own_redis.url, catalogue={"dialects": ["zoho"]}, **({"upstreams": upstreams} if upstreams else {}),
                     licensing={"system": "zoho", "main_products": ["enterprise"], "main_product_users": 0,
                                "user_types": {"client": {"modules": {"Leads": ["view"]}}}, "portal_seats": seats})

    return make


def some(count):
    return [str(next(_ids)) for _ in range(count)]


def invite(gate, record, user_type=CLIENT_TYPE, how="invite", **headers):
    target = f"/crm/v8/Contacts/{record}/actions/portal_invite?user_type_id={user_type}&type={how}"
    return gate.call("POST", target, {**STAFF, **headers})


def invite_all(gate, records, user_type=CLIENT_TYPE, **headers):
    data = [{"id": record, "user_type_id": user_type, "type": "invite"} for record in records]
    body = {"portal_invite": [{"data": data}]}
    return gate.call("POST", "/crm/v8/Contacts/actions/portal_invite", {**STAFF, "Content-Type": "application/json", **headers},
                     json.dumps(body).encode())


def fill(gate, count):
    records = some(count)
    for first in range(0, count, 500):
        reply = invite_all(gate, records[first:first + 500])
        assert reply.status == 200 and b"SCHEDULED" in reply.body, reply
    return records


def pool(gate):
    reply = gate.admin("/api/v1/licenses", with_token=True)
    assert reply.status == 200, reply
    return next(product for product in reply.json() if product["id"] == "portal_users")


# Client Portal users at release, licences bought, active now; free, billable from the next cycle, whether one more may come.
# Zoho's notice on portal licences, with the readings of docs/licences.md.
DECISIONS = [
    (0, 0, 0, 1000, 0, True),
    (0, 0, 999, 1000, 0, True),
    (0, 0, 1000, 1000, 0, False),
    (800, 0, 1000, 1000, 0, False),
    (1000, 0, 1000, 1000, 0, False),
    (1001, 0, 1001, 1001, 0, False),
    (7500, 0, 7500, 7500, 0, False),
    (7500, 0, 7000, 7500, 0, True),
    (0, 1500, 1500, 1000, 500, False),
    (0, 1500, 1400, 1000, 400, True),
    (0, 600, 600, 1000, 0, True),
]


@pytest.mark.parametrize("at_release, purchased, active, free, billable, one_more", DECISIONS,
                         ids=[f"Z{number}-at_release_{row[0]}-bought_{row[1]}-active_{row[2]}" for number, row in enumerate(DECISIONS, start=1)])
def test_the_decision_table_of_the_notice(portal, crm, at_release, purchased, active, free, billable, one_more):
    gate = portal(client_users_at_release=at_release, purchased=purchased)
    fill(gate, active)
    seen = pool(gate)
    assert (seen["used"], seen["free"], seen["billable"]) == (active, free, billable), seen
    before = crm.counts()["requests"]
    reply = invite(gate, some(1)[0])
    if one_more:
        assert reply.status == 200 and crm.counts()["requests"] == before + 1, reply
        assert reply.get("License-Seat") == "portal_users;taken"
    else:
        assert reply.status == 403 and crm.counts()["requests"] == before, reply
        assert reply.json()["reason"] == "seat_cap_reached" and reply.json()["pool"] == "portal_users", reply
        assert reply.json()["capacity"] == seen["capacity"] == max(free, purchased)
    assert pool(gate)["used"] == active + one_more


def test_ten_invitations_at_once_for_the_last_seat_over_three_proxies(portal, crm):
    gates = [portal(name) for name in ("one", "two", "three")]
    fill(gates[0], 999)
    records, replies = some(10), []
    go = threading.Barrier(10)

    def ask(number):
        go.wait()
        replies.append(invite(gates[number % 3], records[number]).status)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200] + [403] * 9
    assert pool(gates[1])["used"] == 1000


@pytest.mark.parametrize("answer", ["refuse", "error"])
def test_an_invitation_that_the_crm_refuses_keeps_no_seat(portal, crm, answer):
    gate, other = portal("one"), portal("two")
    fill(gate, 999)
    one, two, three = some(3)
    assert invite(gate, one, **{"X-Standin-Portal": answer}).status == (400 if answer == "refuse" else 200)
    assert pool(gate)["used"] == 999
    assert invite_all(gate, [two], **{"X-Standin-Portal": answer}).status in (200, 400)
    assert invite(other, three).status == 200, "the seat is free for another, everywhere"
    assert pool(gate)["used"] == 1000
    # Who is a member already stays one when inviting him again is refused.
    assert invite(gate, three, how="reinvite", **{"X-Standin-Portal": answer}).status == (400 if answer == "refuse" else 200)
    assert pool(gate)["used"] == 1000


def test_an_invitation_that_is_lost_on_the_way_keeps_its_seat_and_one_that_was_never_sent_does_not(portal, crm):
    gate = portal("one")
    lost = invite(gate, some(1)[0], **{"X-Standin-Fault": "reset_before_reply"})
    assert lost.status == 502, lost
    eventually(lambda: pool(gate)["used"] == 1, 5, "the CRM may have taken him in")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = "http://127.0.0.1:%d" % free.getsockname()[1]
    unreachable = invite(portal("two", upstreams={"crm": {"servers": [nobody]}}), some(1)[0])
    assert unreachable.json()["reason"] == "upstream_unreachable", unreachable
    eventually(lambda: pool(gate)["used"] == 1, 5, "nobody was invited")


def test_many_at_once_are_invited_all_or_none(portal, crm):
    gate = portal()
    records = fill(gate, 998)
    over = invite_all(gate, some(3))
    assert over.status == 403 and over.json()["wanted"] == 3, over
    assert pool(gate)["used"] == 998
    assert invite_all(gate, records[:500]).status == 200, "who has a seat needs no other"
    assert invite_all(gate, some(2) + records[:100]).status == 200
    assert pool(gate)["used"] == 1000
    assert invite_all(gate, records).status == 200


def test_who_is_removed_or_deactivated_frees_the_seat_and_who_is_activated_takes_one(portal, crm):
    gate, other = portal("one"), portal("two")
    records = fill(gate, 1000)
    one = some(1)[0]
    assert invite(other, one).status == 403
    gone = gate.call("DELETE", f"{USERS}?personality_ids={records[0]},{records[1]},{one}", STAFF)
    assert gone.status == 200 and [user["status"] for user in gone.json()["users"]] == ["success", "success", "error"], gone
    assert pool(gate)["used"] == 998
    off = gate.call("PUT", f"{USERS}/{records[2]}/actions/change_status?active=false", STAFF)
    assert off.status == 200 and pool(gate)["used"] == 997, off
    fill(other, 3)
    assert pool(gate)["used"] == 1000
    on = gate.call("PUT", f"{USERS}/{records[2]}/actions/change_status?active=true", STAFF)
    assert on.status == 403 and on.json()["reason"] == "seat_cap_reached", on
    refused = gate.call("DELETE", f"{USERS}?personality_ids={records[5]}", {**STAFF, "X-Standin-Portal": "refuse"})
    assert refused.status == 400 and pool(gate)["used"] == 1000, refused
    assert gate.call("DELETE", f"{USERS}?personality_ids={records[6]}", STAFF).status == 200
    on = gate.call("PUT", f"{USERS}/{records[2]}/actions/change_status?active=true", STAFF)
    assert on.status == 200 and pool(other)["used"] == 1000, on


def test_what_the_grandfathered_count_adds_is_for_the_client_portal_alone_when_its_types_are_named(portal, crm):
    gate = portal(client_users_at_release=1002, client_user_types=[CLIENT_TYPE])
    fill(gate, 1000)
    one, two = some(2)
    partner = invite(gate, one, PARTNER_TYPE)
    assert partner.status == 403 and partner.json()["capacity"] == 1000, partner
    assert invite(gate, one).status == 200
    assert invite_all(gate, [two], PARTNER_TYPE).status == 403
    assert invite_all(gate, [two]).status == 200
    assert pool(gate)["used"] == 1002


def test_administrators_see_release_and_assign_portal_users(portal, crm):
    gate = portal()
    one, two = some(2)
    assert invite(gate, one).status == 200
    command = lambda *words: gate.command_run("license", *words, "-c", gate.config_path)  # noqa: E731
    assert "portal_users" in command("list").stdout
    assert one in command("seats", "--pool", "portal_users").stdout
    assert command("assign", two, "--pool", "portal_users").returncode == 0
    assert pool(gate)["used"] == 2
    assert command("release", one, "--pool", "portal_users").returncode == 0
    assert pool(gate)["used"] == 1
    assert all(seat["pool"] != "portal_users" for seat in gate.usage(bearer("ann", licenses=("client",))).get("seats", []))


def test_without_the_store_nobody_is_invited(portal, crm, own_redis):
    gate = portal()
    own_redis.signal(signal.SIGSTOP)
    try:
        reply = invite(gate, some(1)[0])
        assert reply.status == 503 and reply.json()["reason"] == "store_unavailable", reply
    finally:
        own_redis.signal(signal.SIGCONT)


def test_what_names_no_record_or_several_ways_is_refused_and_portal_users_invite_nobody(portal, crm):
    gate = portal()
    json_type = {**STAFF, "Content-Type": "application/json"}
    for target, body in (("/crm/v8/Contacts/x/actions/portal_invite", None), ("/crm/v8/Contacts/01/actions/portal_invite", None),
                         ("/crm/v8/Contacts/actions/portal_invite", b"{}"),
                         ("/crm/v8/Contacts/actions/portal_invite", b'{"portal_invite":[{"data":[{"id":"1"},{"id":"x"}]}]}'),
                         ("/crm/v8/Contacts/1/actions/portal_invite?user_type_id=1&user_type_id=2", None)):
        assert gate.call("POST", target, json_type, body).status == 400, target
    assert gate.call("DELETE", USERS, STAFF).status == 400
    assert gate.call("PUT", f"{USERS}/1/actions/change_status", STAFF).status == 400
    client = bearer("ann", licenses=("client",))
    assert gate.call("POST", "/crm/v8/Contacts/1/actions/portal_invite?user_type_id=1&type=invite", client).status == 403
    assert pool(gate)["used"] == 0
