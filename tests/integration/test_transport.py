"""HTTP through the proxy: what must arrive unchanged, what must be taken out, what must stream."""
import base64
import hashlib
import os
import socket
import struct
import time

import pytest

from harness import bearer, eventually
from http1 import Client, Closed, render


def header_map(reply):
    out = {}
    for name, value in reply.json()["headers"]:
        out.setdefault(name.lower(), []).append(value)
    return out


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "MERGE", "PROPFIND"])
def test_every_method_token_arrives(gate, crm, method):
    reply = gate.call(method, "/echo?x=1&y=%2F", body=None if method in ("GET", "DELETE", "OPTIONS", "PROPFIND") else b"{}")
    assert reply.status == 200 and reply.json()["method"] == method
    assert reply.json()["target"] == "/echo?x=1&y=%2F"


def test_the_body_arrives_byte_for_byte(gate, crm):
    body = os.urandom(300_000)
    reply = gate.call("POST", "/upload", body=body).json()
    assert reply["body_length"] == len(body) and reply["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_a_chunked_body_arrives_with_its_trailers(gate, crm):
    reply = gate.call("POST", "/upload", chunked=[b"abc", b"defgh" * 1000, b"z"], trailers=[("X-Sum", "17")]).json()
    assert reply["body_sha256"] == hashlib.sha256(b"abc" + b"defgh" * 1000 + b"z").hexdigest()
    assert ["X-Sum", "17"] in reply["trailers"] or ["x-sum", "17"] in [[n.lower(), v] for n, v in reply["trailers"]]
    assert reply["chunks"] >= 1


def test_a_chunked_reply_with_trailers_comes_through(gate, crm):
    with gate.client() as client:
        reply = client.request("GET", "/trailers", bearer("s", user_type="staff"))
        assert reply.body == b"counted\n"
        assert dict(reply.trailers) == {"X-Row-Count": "1", "X-Checksum": "abc"}
        assert client.request("GET", "/echo").status == 200


def test_head_gets_the_head_alone(gate, crm):
    with gate.client() as client:
        reply = client.request("HEAD", "/bytes/5000")
        assert reply.status == 200 and reply.get("Content-Length") == "5000"
        assert client.request("GET", "/bytes/7").body == b"0123456"


def test_interim_replies_come_before_the_final_one(gate, crm):
    reply = gate.call("GET", "/early", bearer("s", user_type="staff"))
    assert 103 in [interim.status for interim in reply.interim]
    assert reply.body == b"late\n"


def test_expect_100_continue_is_answered_before_the_body_is_sent(gate, crm):
    with gate.client() as client:
        client.send(render("POST", "/upload", {"Expect": "100-continue", "Content-Length": "5"}))
        assert client.read_head().status == 100
        client.send(b"hello")
        assert client.read().json()["body_length"] == 5


def test_expect_100_continue_is_answered_by_the_proxy_when_it_inspects(gate, crm, auth):
    from requests_crm import json_batch
    headers, body = json_batch([("GET", "Case?$top=1")])
    with gate.client() as client:
        client.send(render("POST", "/0/odata/$batch", {**auth, **headers, "Expect": "100-continue", "Content-Length": str(len(body))}))
        assert client.read_head().status == 100
        client.send(body)
        assert client.read().status == 200


def test_a_refused_call_with_expect_gets_its_reply_without_the_body(gate, crm):
    with gate.client() as client:
        client.send(render("POST", "/0/odata/Case", {"Expect": "100-continue", "Content-Length": "1000"}))
        reply = client.read()
        assert reply.status == 401 and reply.interim == []


def test_204_and_304_have_no_body(gate, crm):
    with gate.client() as client:
        for status in (204, 304):
            assert client.request("GET", f"/status/{status}", bearer("s", user_type="staff")).status == status
        assert client.request("GET", "/echo").status == 200


def test_requests_in_a_pipeline_are_answered_in_order(gate, crm):
    with gate.client() as client:
        client.send(b"".join(render("GET", f"/bytes/{n}") for n in (1, 2000, 3, 70_000, 5)))
        assert [len(client.read().body) for _ in range(5)] == [1, 2000, 3, 70_000, 5]


def test_a_request_split_at_every_byte_is_the_same_request(gate, crm):
    message = render("POST", "/upload", {"X-A": "1"}, chunked=[b"hello", b"world"])
    with gate.client() as client:
        for at in range(1, len(message), 7):
            client.send(message[:at])
            time.sleep(0.001)
            client.send(message[at:])
            assert client.read().json()["body_sha256"] == hashlib.sha256(b"helloworld").hexdigest()


def test_http_1_0_gets_a_reply_it_understands(gate, crm):
    with gate.client() as client:
        reply = client.request("GET", "/bytes/100000?chunked=1", version="1.0")
        assert reply.status == 200 and reply.get("Transfer-Encoding") is None
        assert len(reply.body) == 100_000
        assert client.closed_by_peer()


def test_connection_close_is_obeyed(gate, crm):
    with gate.client() as client:
        reply = client.request("GET", "/echo", {"Connection": "close"})
        assert reply.get("Connection") == "close"
        assert client.closed_by_peer()


def test_hop_by_hop_fields_end_at_the_proxy(gate, crm):
    seen = header_map(gate.call("GET", "/echo", [("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"),
                                                 ("Proxy-Connection", "keep-alive"), ("TE", "trailers"), ("X-End", "2")]))
    for name in ("x-hop", "keep-alive", "proxy-connection"):
        assert name not in seen
    assert seen["x-end"] == ["2"]


def test_end_to_end_fields_arrive_in_order_and_number(gate, crm):
    sent = [("Cookie", "a=1; b=2"), ("X-Same", "1"), ("X-Same", "2"), ("BPMCSRF", "abc"), ("Prefer", "continue-on-error")]
    reply = gate.call("GET", "/echo", sent).json()
    kept = [tuple(pair) for pair in reply["headers"] if tuple(pair) in sent]
    assert kept == sent


def test_forwarding_fields_of_strangers_are_not_believed(gate, crm):
    seen = header_map(gate.call("GET", "/echo", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher"}))
    assert "6.6.6.6" not in ",".join(seen["x-forwarded-for"])
    assert "127.0.0.1" in ",".join(seen["x-forwarded-for"])
    assert seen["x-forwarded-proto"] == ["http"]


def test_forwarding_fields_of_trusted_proxies_are_extended(proxy, crm):
    gate = proxy(proxy={"trusted_proxies": ["127.0.0.0/8"]})
    seen = header_map(gate.call("GET", "/echo", {"X-Forwarded-For": "203.0.113.9"}))
    assert ",".join(seen["x-forwarded-for"]).replace(" ", "") == "203.0.113.9,127.0.0.1"
    assert gate.access_lines() == [] or gate.access_lines()[-1]["client"] == "203.0.113.9"


def test_several_set_cookie_fields_stay_apart(gate, crm):
    reply = gate.call("POST", "/ServiceModel/AuthService.svc/Login", {"Content-Type": "application/json"},
                      b'{"UserName":"Supervisor","UserPassword":"secret"}')
    assert reply.status == 200 and len(reply.all("Set-Cookie")) == 4


def test_a_client_may_half_close_after_its_request(gate, crm):
    with gate.client() as client:
        client.send(render("GET", "/bytes/50000", {"Connection": "close"}))
        client.sock.shutdown(socket.SHUT_WR)
        assert len(client.read().body) == 50_000


def websocket_frame(payload, opcode=1):
    mask = os.urandom(4)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def read_websocket_frame(client):
    first, second = client.take(2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack(">H", client.take(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", client.take(8))[0]
    return first & 0x80, first & 0x0F, client.take(size)


def read_websocket_message(client):
    """(opcode, payload), put together from its fragments."""
    final, opcode, payload = read_websocket_frame(client)
    while not final:
        final, continuation, more = read_websocket_frame(client)
        assert continuation == 0
        payload += more
    return opcode, payload


def test_a_websocket_runs_through(gate, crm, auth):
    key = base64.b64encode(os.urandom(16)).decode()
    with gate.client() as client:
        client.send(render("GET", "/0/Nui/ViewModule.aspx.ashx", {**auth, "Connection": "Upgrade", "Upgrade": "websocket",
                                                                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}))
        reply = client.read()
        assert reply.status == 101, reply
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        assert reply.get("Sec-WebSocket-Accept") == accept
        for payload in (b"hello", b"x" * 60_000, b""):
            client.send(websocket_frame(payload))
            assert read_websocket_message(client) == (1, payload)
        client.send(websocket_frame(struct.pack(">H", 1000), opcode=8))
        assert read_websocket_message(client)[0] == 8
        assert client.closed_by_peer()


def test_an_upgrade_is_refused_where_the_route_forbids_it(proxy, crm, auth):
    gate = proxy(routes=[{"path_prefix": "/", "upstream": "crm", "allow_upgrade": False}])
    with gate.client() as client:
        reply = client.request("GET", "/0/Nui/ViewModule.aspx.ashx", {**auth, "Connection": "Upgrade", "Upgrade": "websocket",
                                                                     "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 22 + "=="})
        assert reply.status != 101


GIB = 1 << 30


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [0, 1])
def test_a_gibibyte_down_needs_no_memory(proxy, crm, chunked):
    gate = proxy(workers=1)
    gate.call("GET", "/bytes/1000000")
    before, seen, peak = gate.rss_kib(), 0, 0

    def sink(piece):
        nonlocal seen, peak
        if seen // (64 << 20) != (seen + len(piece)) // (64 << 20):
            peak = max(peak, gate.rss_kib())
        seen += len(piece)

    with gate.client() as client:
        client.send(render("GET", f"/bytes/{GIB}?chunked={chunked}"))
        client.read(sink=sink)
    assert seen == GIB
    assert peak - before < 8 * 1024, f"{before} KiB before, {peak} KiB at most"


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
def test_a_gibibyte_up_needs_no_memory(proxy, crm, chunked):
    gate = proxy(workers=1)
    gate.call("POST", "/upload", body=b"x" * 100_000)
    before, peak = gate.rss_kib(), 0
    block = b"0123456789abcdef" * 65_536
    with gate.client(timeout=120) as client:
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(GIB)}
        client.send(render("POST", "/upload", framing))
        for number in range(GIB // len(block)):
            client.send(f"{len(block):x}\r\n".encode() + block + b"\r\n" if chunked else block)
            if number % 64 == 0:
                peak = max(peak, gate.rss_kib())
        if chunked:
            client.send(b"0\r\n\r\n")
        assert client.read().json()["body_length"] == GIB
    assert peak - before < 8 * 1024, f"{before} KiB before, {peak} KiB at most"


def test_a_client_that_does_not_read_holds_the_upstream_back(proxy, crm):
    gate = proxy(workers=1)
    gate.call("GET", "/bytes/1000000")
    before = gate.rss_kib()
    with gate.client() as client:
        client.send(render("GET", f"/bytes/{256 << 20}"))
        time.sleep(1.0)
        assert gate.rss_kib() - before < 8 * 1024
        # and the others are served meanwhile
        assert gate.call("GET", "/echo").status == 200


def test_a_client_that_leaves_in_mid_upload_frees_the_upstream(gate, crm):
    from harness import eventually
    with gate.client() as client:
        client.send(render("POST", "/upload", {"Content-Length": "1000000"}) + b"x" * 1000)
    eventually(lambda: crm.counts()["running"] == 0, 10, "the upstream connection is let go")
    assert gate.call("GET", "/echo").status == 200


@pytest.mark.parametrize("part", [b"GET /echo HTTP/1.1\r\nHost: portal", b"POST /upload HTTP/1.1\r\nHost: portal.test\r\n"
                                  b"Content-Length: 100000\r\n\r\nabc"], ids=["head", "body"])
def test_a_reset_that_comes_with_a_part_of_a_request_is_noticed_at_once(proxy, crm, part):
    gate = proxy(timeouts={"request_head": "60s", "request_body": "60s"})
    for _ in range(20):
        client = gate.client()
        client.send(part)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    eventually(lambda: gate.metric("tollgate_connections", side="client") == 0, 5, "the connections are closed")


def test_an_early_reply_reaches_a_client_that_is_still_sending(gate, crm):
    """The upstream refuses before the body is complete."""
    with gate.client() as client:
        client.send(render("POST", "/upload", {"Content-Length": "10", "Expect": "100-continue", "X-Standin-Refuse-Continue": "1"}))
        try:
            reply = client.read()
            assert reply.status == 417
        except Closed as closed:
            pytest.fail(f"no reply: {closed}")


def test_many_connections_are_served_at_once(gate, crm):
    clients = [Client(gate.port) for _ in range(200)]
    try:
        for client in clients:
            client.send(render("GET", "/echo"))
        assert all(client.read().status == 200 for client in clients)
    finally:
        for client in clients:
            client.close()


def test_connections_to_the_upstream_are_reused(gate, crm):
    with gate.client() as client:
        for _ in range(50):
            assert client.request("GET", "/echo").status == 200
    assert crm.counts()["connections"] <= 5
