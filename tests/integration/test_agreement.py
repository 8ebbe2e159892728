"""Random traffic: what the proxy counted, charged, logged and measured is what the CRM really received."""
import collections
import os
import random

from harness import bearer, eventually
from requests_crm import CASES, JSON, data_batch, json_batch, multipart_batch, select

ONE = CASES + "(00000029-57a0-4d1c-9c0d-000000000029)"


def random_call(rng):
    """(method, target, headers, body, units when admitted, licensed operations as the CRM counts them); None units: denied."""
    kind = rng.randrange(11)
    if kind == 0:
        return "GET", CASES + f"?$top={rng.randrange(5)}", {}, None, 1, ["GET Case"]
    if kind == 1:
        return "GET", ONE, {}, None, 1, ["GET Case"]
    if kind == 2:
        return "POST", CASES, JSON, b'{"Subject":"x"}', 1, ["POST Case"]
    if kind == 3:
        return "PATCH", ONE, JSON, b'{"Subject":"y"}', 1, ["PATCH Case"]
    if kind == 4:
        return "DELETE", ONE, {}, None, None, []
    if kind == 5:
        return "GET", "/0/odata/City", {}, None, 0, []
    if kind == 6:
        count = rng.randrange(1, 12)
        headers, body = json_batch([("GET", "Case?$top=1")] * count)
        return "POST", "/0/odata/$batch", headers, body, count, ["GET Case"] * count
    if kind == 7:
        reads, writes = rng.randrange(1, 4), rng.randrange(1, 4)
        headers, body = multipart_batch([("GET", "Case?$top=1")] * reads, [("POST", "Case", {"Subject": "z"})] * writes)
        return "POST", "/0/odata/$batch", headers, body, reads + writes, ["GET Case"] * reads + ["POST Case"] * writes
    if kind == 8:
        return "POST", "/0/DataService/json/SyncReply/SelectQuery", JSON, select("Case"), 1, ["SelectQuery Case"]
    if kind == 9:
        count = rng.randrange(1, 5)
        return ("POST", "/0/DataService/json/SyncReply/BatchQuery", JSON, data_batch(*[("UpdateQuery", "Case")] * count), count,
                ["UpdateQuery Case"] * count)
    headers, body = json_batch([("GET", "Case?$top=1"), ("GET", "Account?$top=1")])
    return "POST", "/0/odata/$batch", headers, body, None, []


def test_everybody_agrees_on_random_traffic(proxy, crm, user):
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    limit = 60
    gate = proxy(quotas=[{"name": "daily", "limit": limit, "window": "24h", "per": ["user"], "on": "licensed"}])
    people = [bearer(f"{user}-{number}") for number in range(4)]
    used = [0] * len(people)
    received, statuses = collections.Counter(), collections.Counter()
    with gate.client() as client:
        for _ in range(250):
            who = rng.randrange(len(people))
            method, target, headers, body, units, operations = random_call(rng)
            reply = client.request(method, target, {**people[who], **headers}, body)
            if units is None:
                expected = 403
            elif used[who] + units > limit:
                expected = 429
            else:
                expected = reply.status if reply.status in (200, 201, 204) else 200
                used[who] += units
                received.update(operations)
            assert reply.status == expected, (seed, method, target, used[who], units, reply)
            statuses[str(reply.status)] += 1
    assert [gate.used(headers) for headers in people] == used
    seen = {name: times for name, times in crm.counts()["operations"].items() if name.endswith(" Case")}
    assert seen == dict(received)
    eventually(lambda: gate.metric("tollgate_requests_total") >= 250, 10, "all is counted")
    for status, times in statuses.items():
        extra = len(people) if status == "200" else 0  # the usage pages asked for above
        assert gate.metric("tollgate_requests_total", code=status) in (times, times + extra)
    assert gate.metric("tollgate_calls_total", object="Case", reason="ok") == sum(received.values())
    lines = eventually(lambda: len(gate.access_lines()) >= 250 and gate.access_lines(), 10, "all lines are written")
    assert sum(line["units"] for line in lines) == sum(used)
