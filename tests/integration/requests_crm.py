"""Requests as CRM clients send them."""
import json

CASES = "/0/odata/Case"
JSON = {"Content-Type": "application/json"}


def json_batch(parts):
    """(headers, body) of an OData JSON batch. parts: [(method, url)] or [(method, url, body)]"""
    requests = []
    for index, part in enumerate(parts):
        request = {"id": str(index), "method": part[0], "url": part[1]}
        if len(part) > 2:
            request["body"] = part[2]
            request["headers"] = {"Content-Type": "application/json"}
        requests.append(request)
    return dict(JSON), json.dumps({"requests": requests}).encode()


def multipart_batch(reads, changes=()):
    """(headers, body): bare reads, then one change set with the changes [(method, url, body)]."""
    out = ""
    for method, url in reads:
        out += f"--batch_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n{method} {url} HTTP/1.1\r\nAccept: application/json\r\n\r\n\r\n"
    if changes:
        out += "--batch_1\r\nContent-Type: multipart/mixed;boundary=changeset_1\r\n\r\n"
        for index, (method, url, body) in enumerate(changes):
            out += (f"--changeset_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {index + 1}\r\n\r\n"
                    f"{method} {url} HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{json.dumps(body)}\r\n")
        out += "--changeset_1--\r\n"
    out += "--batch_1--\r\n"
    return {"Content-Type": "multipart/mixed;boundary=batch_1"}, out.encode()


def select(entity):
    return json.dumps({"rootSchemaName": entity, "operationType": 0, "columns": {"items": {}}, "allColumns": True}).encode()


def data_batch(*items):
    """BatchQuery of (type, entity) items."""
    return json.dumps({"items": [{"__type": f"Terrasoft.Nui.ServiceModel.DataContract.{kind}", "rootSchemaName": entity,
                                  "columnValues": {"items": {}}} for kind, entity in items]}).encode()
