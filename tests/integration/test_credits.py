"""Zoho's API credits as a quota: what a call costs, all or none, for the organization over all its users."""
import json

from harness import bearer

ZOHO = {"licensing": {"system": "zoho", "main_products": ["enterprise"], "main_product_users": 0, "user_types": {
    "client": {"modules": {"Leads": ["view", "create", "edit"], "Contacts": ["create"], "Accounts": ["create"], "Deals": ["create"]}}}},
    "catalogue": {"dialects": ["zoho"]}}
JSON = {"Content-Type": "application/json"}


def credits_of(gate, who):
    return next(limit["used"] for limit in gate.usage(who)["limits"] if limit["name"] == "credits")


def test_calls_cost_what_the_vendor_counts_for_the_whole_organization(proxy, crm, user):
    gate = proxy(**ZOHO, quotas=[{"name": "credits", "limit": 530, "window": "24h", "per": ["organization"], "on": "credits",
                                  "staff": True}])
    client = bearer(user, organization=user, licenses=("client",))
    boss = bearer(user + "boss", organization=user, user_type="staff")
    spent = 0
    for method, target, body, price in (
            ("GET", "/crm/v8/Leads", None, 1),
            ("GET", "/crm/v8/Leads?cvid=7", None, 3),
            ("POST", "/crm/v8/Leads", {"data": [{}] * 25}, 3),
            ("POST", "/crm/v8/coql", {"select_query": "select a from Leads limit 2000"}, 3),
            ("POST", "/crm/v8/Leads/1/actions/convert", {}, 5),
            ("GET", "/crm/v8/settings/modules", None, 1),
            ("POST", "/crm/v8/__composite_requests", {"__composite_requests": [
                {"method": "GET", "uri": "/crm/v8/Leads"}, {"method": "POST", "uri": "/crm/v8/Leads", "body": {"data": [{}]}}]}, 2)):
        reply = gate.call(method, target, {**client, **JSON}, None if body is None else json.dumps(body).encode())
        assert reply.get("Content-Type") != "application/problem+json", reply
        spent += price
        assert credits_of(gate, client) == spent, target
    job = json.dumps({"operation": "insert", "resource": [{"module": "Leads"}]}).encode()
    before = crm.counts()["requests"]
    assert gate.call("POST", "/crm/bulk/v8/write", {**boss, **JSON}, job).get("Content-Type") != "application/problem+json"
    assert crm.counts()["requests"] == before + 1 and credits_of(gate, client) == spent + 500
    refused = gate.call("POST", "/crm/bulk/v8/write", {**boss, **JSON}, job)
    assert refused.status == 429 and refused.json()["units"] == 500 and "credits" in refused.json()["detail"], refused
    assert crm.counts()["requests"] == before + 1 and credits_of(gate, client) == spent + 500, "what is refused costs nothing"
    assert gate.call("GET", "/crm/v8/Leads", client).status in (200, 204), "what still fits goes on"
    assert gate.call("GET", "/crm/v8/Leads", {**client, "Authorization": ""}).status == 401
    assert credits_of(gate, client) == spent + 501
