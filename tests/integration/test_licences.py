"""The licence tables of each system, cell by cell, through the real proxy: what is granted reaches the CRM, what is not does
not, and says why. The tables stand here as the vendors' documents print them."""
import pytest

from harness import CUSTOMER, PARTNER, SELF_SERVICE, Proxy, bearer
from requests_crm import JSON

METHODS = {"R": "GET", "C": "POST", "E": "PATCH", "D": "DELETE"}
RECORD = "(405947d0-2ffb-4ded-8675-0475f19f5a81)"


def creatio(letter, entity):
    """Method and target of one operation on a record or a list of them."""
    return METHODS[letter], f"/0/odata/{entity}" + ("" if letter in "RC" else RECORD)


def zoho(letter, module):
    method = {"R": "GET", "C": "POST", "E": "PUT", "D": "DELETE"}[letter]
    return method, f"/crm/v8/{module}" + ("" if letter in "RC" else "/554023000000")


def verdict(gate, crm, who, method, target):
    """The reason of a refusal, or "ok" when the call reached the CRM; never both, never neither."""
    before = crm.counts()["requests"]
    reply = gate.call(method, target, {**who, **JSON}, None if method in ("GET", "DELETE") else b"{}")
    arrived = crm.counts()["requests"] - before
    if reply.get("Content-Type") == "application/problem+json":
        assert arrived == 0 and reply.status == 403, reply
        return reply.json()["reason"]
    assert arrived == 1, reply
    return "ok"


def granted(gate, crm, who, shape, thing):
    """ "RCE": the operations that reach the CRM; the others must be refused by section or operation."""
    letters = ""
    for letter in "RCED":
        answer = verdict(gate, crm, who, *shape(letter, thing))
        assert answer in ("ok", "section_not_licensed", "operation_not_licensed"), answer
        letters += letter if answer == "ok" else ""
    return letters or "-"


# Licence sheet of bpm'online 7.x: entity, then Self-service, Customer, Partner Portal.
SHEET = [
    ("Account", "-", "-", "-"),
    ("Contact", "-", "-", "-"),
    ("KnowledgeBase", "R", "R", "R"),
    ("Case", "RCE", "RCE", "RCE"),
    ("Lead", "-", "-", "RCE"),
    ("Opportunity", "-", "-", "RCE"),
    ("Order", "-", "-", "RCE"),
    ("Document", "-", "-", "RCE"),
    ("MktgActivity", "-", "-", "RCE"),
    ("FinApplication", "-", "RCE", "-"),
    ("Contract", "-", "RCE", "-"),
]


@pytest.fixture(scope="session")
def everything_owned(shared, session_folder, crm_process, redis):
    return shared(Proxy(session_folder, crm_process.url, redis.url, "everything",
                        {"licensing": {"main_products": ["bank_customer_journey", "crm_bundle"]}}))


@pytest.mark.parametrize("entity, self_service, customer, partner", SHEET, ids=[row[0] for row in SHEET])
def test_bpmonline_grants_what_its_licence_sheet_says(everything_owned, crm, user, entity, self_service, customer, partner):
    for licence, rights in ((SELF_SERVICE, self_service), (CUSTOMER, customer), (PARTNER, partner)):
        assert granted(everything_owned, crm, bearer(user, licenses=[licence]), creatio, entity) == rights, licence


# Sections of the CRM that no portal has.
NOT_ON_THE_SHEET = ["Invoice", "Project", "Employee", "Campaign", "BulkEmail", "Event"]


@pytest.mark.parametrize("entity", NOT_ON_THE_SHEET)
def test_bpmonline_grants_nothing_in_sections_that_are_not_on_the_sheet(everything_owned, crm, user, entity):
    who = bearer(user, licenses=[SELF_SERVICE, CUSTOMER, PARTNER])
    for letter in "RCED":
        assert verdict(everything_owned, crm, who, *creatio(letter, entity)) == "section_not_licensed", letter


# With which main products each portal is sold.
SOLD = [
    ("studio", "-", "ok", "-"),
    ("sales", "-", "ok", "-"),
    ("sales_enterprise", "-", "ok", "ok"),
    ("marketing", "-", "ok", "-"),
    ("customer_center", "ok", "ok", "-"),
    ("service_enterprise", "ok", "ok", "-"),
    ("bank_customer_journey", "ok", "ok", "-"),
    ("crm_bundle", "-", "ok", "ok"),
]


@pytest.mark.parametrize("owned, self_service, customer, partner", SOLD, ids=[row[0] for row in SOLD])
def test_bpmonline_portals_come_with_their_main_products_only(proxy, crm, user, owned, self_service, customer, partner):
    gate = proxy(licensing={"main_products": [owned]})
    for licence, answer in ((SELF_SERVICE, self_service), (CUSTOMER, customer), (PARTNER, partner)):
        said = verdict(gate, crm, bearer(user, licenses=[licence]), *creatio("R", "Case"))
        assert said == ("ok" if answer == "ok" else "product_unavailable"), licence


def test_custom_sections_are_those_listed_and_as_many_as_the_product_has(proxy, crm, user):
    gate = proxy(licensing={"main_products": ["service_enterprise", "crm_bundle"]},
                 catalogue={"custom_sections": ["UsrRealty", "UsrVisit", "UsrKey"]})
    for licence, answer in ((SELF_SERVICE, "custom_section_limit"), (CUSTOMER, "ok"), (PARTNER, "ok")):
        who = bearer(user, licenses=[licence])
        for entity in ("UsrRealty", "UsrVisit", "UsrKey"):
            for letter in "RCE":
                assert verdict(gate, crm, who, *creatio(letter, entity)) == answer, (licence, entity)
            assert verdict(gate, crm, who, *creatio("D", entity)) == "operation_not_licensed"
        assert verdict(gate, crm, who, *creatio("R", "UsrFourth")) == "custom_section_limit"


# Partner portal guide of Creatio 8.0, and what the older sheet grants beyond it.
PARTNER_PORTAL = [
    ("Lead", "RCE", "RCE"),
    ("Opportunity", "RCE", "RCE"),
    ("Order", "RCE", "RCE"),
    ("Case", "RCE", "RCE"),
    ("KnowledgeBase", "R", "R"),
    ("Partnership", "R", "R"),
    ("Document", "-", "RCE"),
    ("MktgActivity", "-", "RCE"),
    ("Contract", "-", "-"),
    ("Account", "-", "-"),
    ("Contact", "-", "-"),
]


@pytest.mark.parametrize("edition, column", [("creatio_8_0", 1), (None, 1), ("bpmonline_7", 2)])
def test_creatio_partner_grants_what_the_chosen_document_says(proxy, crm, user, edition, column):
    licensing = {"system": "creatio_partner", "main_products": ["sales_enterprise"]}
    gate = proxy(licensing={**licensing, "edition": edition} if edition else licensing)
    for row in PARTNER_PORTAL:
        assert granted(gate, crm, bearer(user, licenses=["Creatio partner portal cloud"]), creatio, row[0]) == row[column], row[0]


def test_creatio_partner_knows_its_licences_by_name(proxy, crm, user):
    gate = proxy(licensing={"system": "creatio_partner", "main_products": ["CRM Creatio"]})
    for name, answer in (("Partner portal on-site", "ok"), ("partner portal on-site/cloud", "ok"), ("X PARTNER PORTAL CLOUD 5", "ok"),
                         ("partner portal", "license_missing"), (CUSTOMER, "license_missing")):
        assert verdict(gate, crm, bearer(user, licenses=[name]), *creatio("R", "Lead")) == answer, name


ZOHO = {"system": "zoho", "main_products": ["enterprise"], "user_types": {
    "client": {"modules": {"Leads": ["view"], "Cases": ["view", "create", "edit"]}},
    "partner": {"license_names": ["Gold Partner"], "modules": {"Deals": ["view", "create", "edit", "delete"], "Realty": ["view"]}},
}}


def test_zoho_user_types_may_what_their_permissions_say(proxy, crm, user):
    gate = proxy(licensing=ZOHO, catalogue={"dialects": ["zoho"]})
    for licences, rights in ((["client"], {"Leads": "R", "Cases": "RCE", "Deals": "-", "Realty": "-", "Invoices": "-"}),
                             (["gold partner"], {"Leads": "-", "Cases": "-", "Deals": "RCED", "Realty": "R", "Invoices": "-"}),
                             (["Client", "Gold Partner"], {"Leads": "R", "Cases": "RCE", "Deals": "RCED", "Invoices": "-"})):
        for module, letters in rights.items():
            assert granted(gate, crm, bearer(user, licenses=licences), zoho, module) == letters, (licences, module)
    assert verdict(gate, crm, bearer(user, licenses=["reseller"]), *zoho("R", "Leads")) == "license_missing"
    client = bearer(user, licenses=["client"])
    assert verdict(gate, crm, client, "POST", "/crm/v8/Leads/1/actions/portal_invite") == "operation_not_licensed"
    assert verdict(gate, crm, client, "POST", "/crm/v8/Cases/upsert") == "ok"
    assert verdict(gate, crm, client, "POST", "/crm/v8/Leads/1/actions/convert") == "operation_not_licensed"
    assert verdict(gate, crm, client, "GET", "/crm/v8/Cases/1/Notes") == "ok"
    assert verdict(gate, crm, client, "GET", "/crm/v8/Notes") == "section_not_licensed"


def test_zoho_calls_are_counted_like_any_other(proxy, crm, user):
    gate = proxy(licensing=ZOHO, catalogue={"dialects": ["zoho"]})
    client = bearer(user, licenses=["client"])
    for _ in range(3):
        assert gate.call("GET", "/crm/v8/Leads", client).status in (200, 204)
    assert gate.call("GET", "/crm/v8/Deals", client).status == 403
    assert gate.used(client) == 3


@pytest.mark.parametrize("edition, answer", [("free", "product_unavailable"), ("standard", "product_unavailable"),
                                             ("professional", "product_unavailable"), ("enterprise", "ok"), ("ultimate", "ok"),
                                             ("trial", "ok")])
def test_zoho_portals_come_with_the_larger_editions(proxy, crm, user, edition, answer):
    gate = proxy(licensing={**ZOHO, "main_products": [edition]}, catalogue={"dialects": ["zoho"]})
    assert verdict(gate, crm, bearer(user, licenses=["client"]), *zoho("R", "Leads")) == answer


# A navigation is bound by the licence of the object that it returns: known to the rulebook, or named by the operator. One that
# nobody knows leads nowhere. What is done to the record itself stays free. Method, entity, path behind the record; the answer
# with and without catalogue.allow_unknown.
NAVIGATIONS = [
    ("GET", "Relationship", "", "ok", "ok"),
    ("GET", "Relationship", "/AccountA", "section_not_licensed", "section_not_licensed"),
    ("GET", "Relationship", "/ContactB/Name", "section_not_licensed", "section_not_licensed"),
    ("PATCH", "Relationship", "/AccountA", "section_not_licensed", "section_not_licensed"),
    ("DELETE", "Relationship", "/AccountB", "section_not_licensed", "section_not_licensed"),
    ("GET", "SysAdminUnit", "/PortalAccount", "section_not_licensed", "section_not_licensed"),
    ("GET", "Relationship", "/AccountA/$ref", "ok", "ok"),
    ("GET", "City", "/UsrDealer", "ok", "section_not_licensed"),
    ("GET", "City", "/UsrBuyer", "section_not_licensed", "section_not_licensed"),
    ("GET", "City", "/UsrDealer/Name", "section_not_licensed", "section_not_licensed"),
    ("PUT", "City", "/UsrDealer", "section_not_licensed", "section_not_licensed"),
    ("PATCH", "City", "/UsrDealer", "section_not_licensed", "section_not_licensed"),
    ("POST", "City", "/UsrDealer", "section_not_licensed", "section_not_licensed"),
    ("DELETE", "City", "/UsrDealer", "section_not_licensed", "section_not_licensed"),
    ("GET", "City", "/Name", "ok", "ok"),
    ("GET", "City", "/UsrCode/$value", "ok", "ok"),
    ("PUT", "SysImage", "/Data", "ok", "ok"),
    ("DELETE", "CaseFile", "/Data", "ok", "ok"),
    ("DELETE", "Case", "/UsrNumber", "ok", "ok"),
    ("PATCH", "Case", "/UsrDealer", "section_not_licensed", "section_not_licensed"),
]


@pytest.mark.parametrize("allow_unknown, column", [(True, 3), (False, 4)])
def test_a_navigation_is_bound_by_the_licence_of_what_it_leads_to(proxy, crm, user, allow_unknown, column):
    gate = proxy(licensing={"main_products": ["bank_customer_journey"]},
                 catalogue={"relations": {"City.UsrBuyer": "Contact"}, "allow_unknown": allow_unknown})
    who = bearer(user, licenses=[SELF_SERVICE])
    for row in NAVIGATIONS:
        method, entity, path = row[:3]
        assert verdict(gate, crm, who, method, f"/0/odata/{entity}{RECORD}{path}") == row[column], row
