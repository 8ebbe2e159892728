"""Routes that replace their prefix: what the upstream is asked for, what is counted, what the client gets to see."""
import pytest

from harness import eventually
from origin import Exchange, Origin
from requests_crm import json_batch

ROUTES = [{"path_prefix": "/portal", "upstream": "crm", "rewrite": {"replace_prefix": "/0/odata"}},
          {"path_prefix": "/bare", "upstream": "crm", "metered": False, "rewrite": {"replace_prefix": "/"}},
          {"path_prefix": "/knows", "upstream": "crm", "metered": False,
           "rewrite": {"replace_prefix": "/crm", "map_replies": False}},
          {"path_prefix": "/", "upstream": "crm", "metered": False}]


@pytest.fixture(scope="module")
def served():
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def origin(served):
    served.reset()
    return served


@pytest.fixture
def gate(proxy, origin):
    return proxy(upstream=origin.url, routes=ROUTES)


def asked(origin):
    """The targets that the upstream was asked for, byte for byte."""
    assert not origin.invalid()
    return [request.start[1] for request in origin.requests()]


@pytest.mark.parametrize("sent, forwarded", [
    ("/portal/Case?$filter=Name%20eq%20'a/b'&x=/portal", "/0/odata/Case?$filter=Name%20eq%20'a/b'&x=/portal"),
    ("/Portal/%43ase('a%2Fb')/?", "/0/odata/%43ase('a%2Fb')/?"),
    ("/portal//Case/./x/%2e%2e?a=//", "/0/odata/Case?a=//"),
    ("http://127.0.0.1/portal/Case?b", "/0/odata/Case?b"),
    ("/bare", "/"),
    ("/bare/", "/"),
    ("/bare?x", "/?x"),
    ("/bare//evil.example/%2F", None),
    ("/bare//evil.example/", "/evil.example/"),
    ("/bare/../portal/../bare/a/", "/a/"),
    ("/portalx/Case", "/portalx/Case"),
    ("//portalx/./Case", "//portalx/./Case"),
])
def test_the_upstream_is_asked_for_the_rewritten_target(gate, origin, auth, sent, forwarded):
    headers = dict(auth, Host="127.0.0.1")
    reply = gate.call("GET", sent, headers)
    if forwarded is None:
        assert reply.status == 400 and asked(origin) == []
        return
    assert reply.status == 200, reply
    assert asked(origin) == [forwarded]


def test_calls_are_counted_by_what_the_upstream_sees(gate, origin, auth):
    assert gate.call("GET", "/portal/Case?$top=1", auth).status == 200
    assert gate.call("GET", "/portal/Lead", auth).json()["reason"] == "section_not_licensed"
    assert gate.call("GET", "/portal/Case").status == 401
    headers, body = json_batch([("GET", "Case"), ("GET", "/0/odata/Case"), ("GET", "Case")])
    assert gate.call("POST", "/portal/$batch", {**auth, **headers}, body).status == 200
    assert asked(origin)[0] == "/0/odata/Case?$top=1"
    sent = [request for request in origin.requests() if request.start[1] == "/0/odata/$batch"]
    assert len(sent) == 1 and sent[0].body == body  # bodies are not touched
    assert gate.used(auth) == 4


def test_addresses_in_the_reply_are_those_that_the_client_knows(gate, origin, auth):
    head = (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + origin.url.encode() + b"/Login\r\n"
            b"Content-Location: /a\r\nSet-Cookie: one=1; Path=/; HttpOnly\r\nSet-Cookie: two=2; path=/ServiceModel\r\n\r\n")
    origin.script = {"/a": Exchange([head]), "/crm/a": Exchange([head]), "/plain": Exchange([head])}
    mapped = gate.call("GET", "/bare/a", auth)
    assert mapped.status == 302 and mapped.get("Location") == "/bare/Login" and mapped.get("Content-Location") == "/bare/a"
    assert mapped.all("Set-Cookie") == ["one=1; Path=/; HttpOnly", "two=2; path=/bare/ServiceModel"]
    for target in ("/knows/a", "/plain"):
        reply = gate.call("GET", target, auth)
        assert reply.get("Location") == origin.url + "/Login" and reply.get("Content-Location") == "/a"
        assert reply.all("Set-Cookie")[1] == "two=2; path=/ServiceModel"


def test_our_own_page_is_never_rewritten(proxy, origin, auth):
    gate = proxy(upstream=origin.url, routes=[{"path_prefix": "/", "upstream": "crm", "rewrite": {"replace_prefix": "/0"}}])
    assert gate.call("GET", "/odata/Case", auth).status == 200
    assert gate.used(auth) == 1
    assert asked(origin) == ["/0/odata/Case"]


def test_a_reload_changes_the_path(gate, origin, auth):
    gate.write_config(routes=[{"path_prefix": "/portal", "upstream": "crm", "rewrite": {"replace_prefix": "/1/odata"}}])
    gate.reload()

    def changed():
        origin.reset()
        assert gate.call("GET", "/portal/Case", auth).status == 200
        return asked(origin) == ["/1/odata/Case"]

    eventually(changed, 10, "the new prefix")
