"""Each row of the licence rules has a test through the proxy: the rulebooks that are built in, row by row, against the tables
that the tests of each system go through. A row that is added to a rulebook without a test fails here."""
import os

import pytest
import yaml

import test_cherwell_licences
import test_licences
import test_partner_program
import test_portal_users
from harness import ROOT

LETTERS = {"read": "R", "create": "C", "edit": "E", "delete": "D"}


def preset(name):
    with open(os.path.join(ROOT, "config/presets", name + ".yaml"), encoding="utf-8") as file:
        return yaml.safe_load(file)


def entities(book):
    return {section: about["entity"] for section, about in book["sections"].items()}


def rights_by_entity(rights, book):
    return {entities(book)[section]: "".join(LETTERS[operation] for operation in operations) for section, operations in rights.items()}


def ids_of(module, test):
    """The parametrized ids of a test, as pytest will have them."""
    marks = [mark for mark in getattr(module, test).pytestmark if mark.name == "parametrize"]
    assert len(marks) == 1
    return marks[0].kwargs.get("ids") or [str(row) for row in marks[0].args[1]]


def test_cherwell_every_row_of_the_decision_table():
    rows = {row["id"] for row in preset("cherwell")["decisions"]}
    tested = {name.split("-")[0] for name in ids_of(test_cherwell_licences, "test_every_row_of_the_table_holds_through_the_proxy")}
    assert tested == rows == {f"C{number}" for number in range(1, 18)} | {"V1"}


def test_cherwell_every_reading_of_what_the_page_leaves_open():
    # V1: a row of its own; V2: combinations() makes no record for others; V3, V4 and, within it, V5 have tests.
    assert ("V1" in {row for _, row in test_cherwell_licences.ROWS}) and hasattr(test_cherwell_licences, "test_V3_a_delete_is_an_edit")
    assert any(name.startswith("test_V4_") for name in dir(test_cherwell_licences))
    assert not [case for case in test_cherwell_licences.combinations() if case["action"] == "create" and case["record"] == "other"]


@pytest.mark.parametrize("column, product", enumerate(("self_service", "customer", "partner"), start=1))
def test_bpmonline_every_section_of_every_product(column, product):
    book = preset("bpmonline")
    granted = rights_by_entity(book["products"][product]["rights"], book)
    sheet = {row[0]: row[column] for row in test_licences.SHEET}
    # The partner program is of the later guide: PARTNER_PORTAL has it.
    assert set(entities(book).values()) == {*sheet, *test_licences.NOT_ON_THE_SHEET, "Partnership"}
    assert {entity: letters for entity, letters in sheet.items() if letters != "-"} == {
        entity: letters for entity, letters in granted.items() if entity != "Partnership"}
    assert set(book["products"]) == {"self_service", "customer", "partner"}


def test_bpmonline_every_main_product():
    assert [row[0] for row in test_licences.SOLD] == list(preset("bpmonline")["main_products"])


@pytest.mark.parametrize("edition, column", [("creatio_8_0", 1), ("bpmonline_7", 2)])
def test_creatio_partner_every_section_of_every_edition(edition, column):
    book = preset("creatio_partner")
    rights = book["products"]["partner"]["rights"] if book["edition"] == edition else book["editions"][edition]["partner"]
    table = {row[0]: row[column] for row in test_licences.PARTNER_PORTAL}
    assert {entity: letters for entity, letters in table.items() if letters != "-"} == rights_by_entity(rights, preset("bpmonline"))
    assert {book["edition"], *book["editions"]} == {"creatio_8_0", "bpmonline_7"}
    assert edition in {row[0] for row in test_licences.test_creatio_partner_grants_what_the_chosen_document_says.pytestmark[0].args[1]}


def test_creatio_every_section_of_ones_own_organization_and_every_row_of_the_rule():
    bound = {section: about["own_organization"] for section, about in preset("bpmonline")["sections"].items() if "own_organization" in about}
    assert bound == {"partner_program": "PartnerId"}, "another section needs rows of its own in test_partner_program"
    assert "sections" not in preset("creatio_partner"), "its sections are those of bpmonline"
    rows = {(record, method, user_type) for record, method, user_type, _ in test_partner_program.ROWS.values()}
    granted = {LETTERS[operation] for operation in preset("creatio_partner")["products"]["partner"]["rights"]["partner_program"]}
    assert granted == {"R"}
    for record in ("own", "other"):
        assert {(record, "GET", "portal"), (record, "PATCH", "portal"), (record, "GET", "staff")} <= rows
    assert {("unknown", "GET", "portal"), ("list", "GET", "portal")} <= rows
    allowed = {name for name, (_, _, user_type, wanted) in test_partner_program.ROWS.items() if wanted == "ok" and user_type == "portal"}
    assert allowed == {"own-read", "list-read"}
    assert set(ids_of(test_partner_program, "test_whatever_names_a_record")) == set(test_partner_program.SHAPES)


def test_zoho_every_edition_of_the_crm():
    book = preset("zoho")
    tested = dict(test_licences.test_zoho_portals_come_with_the_larger_editions.pytestmark[0].args[1])
    assert set(tested) == set(book["main_products"])
    assert {edition for edition, answer in tested.items() if answer == "ok"} == set(book["user_types_with"])


def test_zoho_every_row_of_the_notice():
    """The rulebook has the free number only; the rows follow from it, whoever computes them."""
    free = preset("zoho")["portal_seats"]["free"]
    assert len(test_portal_users.DECISIONS) == len(ids_of(test_portal_users, "test_the_decision_table_of_the_notice")) == 11
    for at_release, purchased, active, allowance, billable, one_more in test_portal_users.DECISIONS:
        assert allowance == (at_release if at_release > free else free)
        assert billable == max(0, active - allowance)
        assert one_more == (active < max(allowance, purchased))
