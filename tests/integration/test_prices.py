"""What billing reads of licences: users, seats and amounts of a period, from calls through real proxies."""
import csv
import hashlib
import json
import os
import time

import pytest

from cherwell import Caller
from harness import CUSTOMER, PARTNER, SELF_SERVICE, Redis, bearer, eventually
from requests_crm import CASES, json_batch
from test_cherwell_licences import OPEN, edit_others, portal_settings, who

LEASE = 1
NO_LIMIT = [{"name": "daily", "limit": 1000000, "window": "24h", "per": ["user"], "on": "licensed"}]


@pytest.fixture
def own_redis(start, tmp_path):
    return start(Redis(str(tmp_path), "own-redis"))


def this_month():
    return time.strftime("%Y-%m", time.gmtime())


def hours_of(period):
    """(of the month, of the year)"""
    year, month = map(int, period.split("-"))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    return days[month - 1] * 24, sum(days) * 24


def share(units, minor_units, part, whole):
    return (2 * units * minor_units * part + whole) // (2 * whole)


def export(gates, folder, period, *words, file_format="ndjson"):
    """(rows of the file of licences, manifest)"""
    os.makedirs(folder, exist_ok=True)
    journals = [word for gate in gates for word in ("--journal", os.path.join(gate.folder, "journal"))]
    done = gates[0].command_run("export", "--period", period, "--format", file_format, "--to", str(folder), *journals, "-c", gates[0].config_path,
                                "--book", str(folder / "book.sqlite"), *words)
    assert done.returncode == 0, done.stderr
    with open(folder / f"{period}.{file_format}.manifest.json", encoding="utf-8") as file:
        manifest = json.load(file)
    with open(folder / manifest["licences"]["file"], "rb") as file:
        data = file.read()
    assert hashlib.sha256(data).hexdigest() == manifest["licences"]["sha256"] and len(data) == manifest["licences"]["bytes"]
    text = data.decode()
    rows = [json.loads(line) for line in text.splitlines()] if file_format == "ndjson" else list(csv.DictReader(text.splitlines()))
    assert len(rows) == manifest["licences"]["rows"]
    return rows, manifest


def row(rows, product, organization=None):
    """The total, or the row of an organization."""
    found = [one for one in rows if one["product"] == product and (one["scope"] == "total" if organization is None else
                                                                  one["scope"] == "organization" and one["organization"] == organization)]
    assert len(found) == 1, (product, organization, rows)
    return found[0]


def test_users_seats_and_calls_of_each_organization_with_the_vendors_prices(proxy, crm, own_redis, tmp_path):
    gates = [proxy(name=name, store=own_redis.url, quotas=NO_LIMIT, licensing={"main_products": ["service_enterprise", "crm_bundle"],
                                                                             "main_product_users": 100, "seat_lease": f"{LEASE}s"})
             for name in ("one", "two")]
    one, two = gates

    def call(gate, user, licence, organization, body=None):
        headers = bearer(user, licenses=(licence,), org=organization)
        if body:
            assert gate.call("POST", "/0/odata/$batch", {**headers, **body[0]}, body[1]).status == 200
        else:
            assert gate.call("GET", CASES, headers).status == 200

    for user, organization in (("ann", "north"), ("bob", "north"), ("cid", "south")):
        for gate in gates:
            call(gate, user, SELF_SERVICE, organization)
    for user in ("dan", "eve"):
        call(one, user, CUSTOMER, "north")
    call(two, "eve", CUSTOMER, "north", json_batch([("GET", "Case"), ("GET", "Case"), ("GET", "Case")]))
    call(two, "fay", PARTNER, "south")
    assert two.command_run("license", "release", "bob", "--pool", "self_service", "-c", two.config_path).returncode == 0
    refused = one.call("DELETE", CASES + "(405947d0-2ffb-4ded-8675-0475f19f5a81)", bearer("gus", licenses=(CUSTOMER,), org="west"))
    assert refused.status == 403

    month = this_month()
    rows, manifest = export(gates, tmp_path / "out", month)
    assert manifest["final"] is False and not [one for one in rows if one["organization"] == "west"], "who was refused owes nothing"
    hours, year = hours_of(month)
    customer = row(rows, "customer")
    assert (customer["users"], customer["calls"], customer["named_seats_max"], customer["concurrent_peak"]) == (2, 5, None, None)
    assert (customer["currency"], customer["price_minor_units"], customer["price_per"], customer["price_every"]) == ("USD", 7000, "user", "year")
    assert customer["amount_minor_units"] == share(2, 7000, hours, year) > 0
    assert customer["rule"] == f"2 user x 7000 x {hours} h / {year} h" and "sheet" in customer["price_source"]
    assert row(rows, "customer", "north")["amount_minor_units"] == customer["amount_minor_units"]
    named = row(rows, "self_service")
    assert (named["users"], named["calls"], named["named_seats_max"], named["named_seats_end"]) == (3, 6, 3, 2)
    assert named["amount_minor_units"] == 0, "a price of 0 is known"
    assert [row(rows, "self_service", name)["named_seats_max"] for name in ("north", "south")] == [2, 1]
    assert [row(rows, "self_service", name)["named_seats_end"] for name in ("north", "south")] == [1, 1]
    partner = row(rows, "partner")
    assert partner["users"] == 1 and partner["amount_minor_units"] is None and partner["price_minor_units"] is None, "on request is not 0"

    # The same as CSV; and the operator's own price wins.
    for gate in gates:
        gate.write_config(licensing={"prices": {"partner": {"minor_units": 12, "currency": "EUR", "per": "call", "source": "contract"}}})
    rows, _ = export(gates, tmp_path / "out", month, file_format="csv")
    partner = row(rows, "partner", "south")
    assert (partner["amount_minor_units"], partner["currency"], partner["rule"]) == ("12", "EUR", "1 call x 12")
    assert row(rows, "customer")["amount_minor_units"] == str(customer["amount_minor_units"])
    assert row(rows, "customer")["named_seats_max"] == ""
    verified = one.command_run("export", "--verify", "-c", one.config_path, "--book", str(tmp_path / "out" / "book.sqlite"), "--offline",
                               "--journal", os.path.join(one.folder, "journal"), "--journal", os.path.join(two.folder, "journal"))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_peak_of_concurrent_licences_is_paid_for_and_a_log_out_ends_one(proxy, crm, own_redis, tmp_path):
    made = portal_settings(tmp_path, capacity=5)
    made["licensing"]["prices"] = {"concurrent": {"minor_units": 2500, "currency": "EUR", "per": "concurrent_seat", "every": "month"}}
    gate = proxy(store=own_redis.url, workers=2, **made)
    first = Caller(gate, "fence", OPEN)
    eventually(lambda: edit_others(first, crm).status == 200, LEASE + 5, "the first seat")
    assert first.logout().status == 200
    for name in ("ann", "bob", "cid"):  # one after the other
        caller = Caller(gate, name, OPEN)
        assert edit_others(caller, crm).status == 200
        assert caller.logout().status == 200
    held = [Caller(gate, name, OPEN) for name in ("dan", who(True, True))]
    for caller in held:
        assert edit_others(caller, crm).status == 200
    month = this_month()
    rows, _ = export([gate], tmp_path / "out", month)
    total = row(rows, "concurrent")
    assert (total["concurrent_peak"], total["named_seats_max"]) == (2, None)
    hours, _ = hours_of(month)
    assert total["amount_minor_units"] == 5000 and total["rule"] == f"2 concurrent_seat x 2500 x {hours} h / {hours} h"


def test_a_price_of_nothing_that_is_sold_is_a_mistake(gate):
    for name, price, complaint in (("nothing", {}, "no such product; known: self_service, customer, partner, concurrent"),
                                   ("customer", {"currency": "usd"}, "no currency of ISO 4217"),
                                   ("concurrent", {"per": "user"}, "is paid for by the concurrent_seat"),
                                   ("customer", {"per": "concurrent_seat"}, "is paid for by the concurrent_seat")):
        gate.write_file("wrong.yaml", json.dumps({**gate.settings, "licensing": {
            **gate.settings["licensing"], "prices": {name: {"minor_units": 1, "currency": "USD", **price}}}}))
        done = gate.command_run("check", "-c", "wrong.yaml")
        assert done.returncode == 78 and complaint in done.stdout + done.stderr, done
