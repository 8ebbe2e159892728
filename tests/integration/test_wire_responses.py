"""Hostile replies of an upstream, by section of RFC 9112: what the client gets is one reply that everybody reads alike, a 502, or
a reply that is visibly cut short; the connection to the upstream is not used again where its end is in doubt."""
import random
import socket

import pytest

import grammar
from harness import PATIENCE
from origin import Exchange
from wire import clean, gate_before_origin, origin, reason, replies, settings, talk  # noqa: F401: fixtures among them

NEXT = b"GET /next HTTP/1.1\r\nHost: crm.test\r\nConnection: close\r\n\r\n"
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Forged: 1\r\n\r\nforged"


def ask(method=b"GET", fields=b"", target=b"/x", version=b"1.1"):
    return method + b" " + target + b" HTTP/" + version + b"\r\nHost: crm.test\r\n" + fields + b"\r\n"


def reply(fields=b"", body=b"", status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + body


def chunked(body):
    return reply(b"Transfer-Encoding: chunked\r\n", body)


# Never reaches the client: 502 upstream_invalid.
REFUSED = {
    "2.2 bare LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "2.2 bare LF after the status line": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "2.2 bare LF after a field": reply(b"A: b\nContent-Length: 2\r\n", b"ok"),
    "2.2 bare LF as the empty line": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
    "2.2 bare CR in a value": reply(b"A: b\rContent-Length: 2\r\n", b"ok"),
    "2.2 empty line first": b"\r\n" + reply(b"Content-Length: 2\r\n", b"ok"),
    "2.2 NUL first": b"\x00" + reply(b"Content-Length: 2\r\n", b"ok"),
    "2.2 no HTTP": b"<html>hello</html>\r\n\r\n",
    "2.2 a request": b"GET / HTTP/1.1\r\nHost: crm.test\r\n\r\n",
    "4 HTTP/0.9": b"ok\r\n\r\n",
    "4 HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "4 HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "4 lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "4 ICY": b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
    "4 two blanks": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "4 tab": b"HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n",
    "4 two digits": reply(status=b"20 OK"),
    "4 four digits": reply(status=b"2000 OK"),
    "4 letters": reply(status=b"2OO OK"),
    "4 minus": reply(status=b"-20 OK"),
    "4 below 100": reply(status=b"099 OK"),
    "4 above 599": reply(status=b"600 OK"),
    "4 no status": reply(status=b""),
    "4 NUL in the phrase": reply(b"Content-Length: 0\r\n", status=b"200 O\x00K"),
    "4 bare CR in the phrase": reply(b"Content-Length: 0\r\n", status=b"200 O\rK"),
    "4 endless status line": b"HTTP/1.1 200 " + b"x" * 20000,
    "5 no colon": reply(b"Broken\r\nContent-Length: 0\r\n"),
    "5 no name": reply(b": x\r\nContent-Length: 0\r\n"),
    "5 blank before the colon": reply(b"A : b\r\nContent-Length: 0\r\n"),
    "5 Content-Length with a blank before the colon": reply(b"Content-Length : 0\r\n"),
    "5 fold": reply(b"A: b\r\n c\r\nContent-Length: 0\r\n"),
    "5 fold first": reply(b" A: b\r\nContent-Length: 0\r\n"),
    "5 NUL in a value": reply(b"A: b\x00c\r\nContent-Length: 0\r\n"),
    "5 DEL in a value": reply(b"A: b\x7f\r\nContent-Length: 0\r\n"),
    "5 NUL in a name": reply(b"A\x00: b\r\nContent-Length: 0\r\n"),
    "5 high byte in a name": reply(b"A\xe4: b\r\nContent-Length: 0\r\n"),
    "5 large field": reply(b"A: " + b"x" * 9000 + b"\r\nContent-Length: 0\r\n"),
    "5 many fields": reply(b"A: b\r\n" * 40 + b"Content-Length: 0\r\n"),
    "6.1 CL and TE": reply(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n"),
    "6.1 TE and CL": reply(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"2\r\nok\r\n0\r\n\r\n"),
    "6.1 TE twice": reply(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "6.1 TE and identity": reply(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    "6.1 identity": reply(b"Transfer-Encoding: identity\r\n", b"ok"),
    "6.1 chunked twice": reply(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "6.1 gzip, chunked": reply(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "6.1 chunked, gzip": reply(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    "6.1 xchunked": reply(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "6.1 empty": reply(b"Transfer-Encoding:\r\n", b"0\r\n\r\n"),
    "6.1 vertical tab": reply(b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"),
    "6.1 HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "6.2 two, different": reply(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"ok!"),
    "6.2 two, equal": reply(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"ok"),
    "6.2 list": reply(b"Content-Length: 2, 2\r\n", b"ok"),
    "6.2 plus": reply(b"Content-Length: +2\r\n", b"ok"),
    "6.2 minus": reply(b"Content-Length: -2\r\n", b"ok"),
    "6.2 hexadecimal": reply(b"Content-Length: 0x2\r\n", b"ok"),
    "6.2 empty": reply(b"Content-Length:\r\n", b"ok"),
    "6.2 2^63": reply(b"Content-Length: 9223372036854775808\r\n", b"ok"),
    "6.2 2^64 + 2": reply(b"Content-Length: 18446744073709551618\r\n", b"ok"),
    "9110-15.2 interim with a length": reply(b"Content-Length: 5\r\n", b"hello", b"103 Early Hints") + FORGED,
    "9110-15.2 interim with a coding": reply(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"103 Early Hints") + FORGED,
    "9110-15.2 interim without end": reply(status=b"103 Early Hints") * 100 + FORGED,
    "9110-15.2.2 101 that nobody asked for": reply(b"Connection: upgrade\r\nUpgrade: websocket\r\n", FORGED, b"101 Switching Protocols"),
    "7.6.1 Connection is no token": reply(b"Connection: close;a\r\nContent-Length: 0\r\n"),
}

# The head was good and has left; then the client must see that the reply is cut: its connection ends before the reply does.
CUT = {
    "6.3 length, early end": reply(b"Content-Length: 10\r\n", b"hello"),
    "6.3 length, no byte": reply(b"Content-Length: 10\r\n"),
    "8 chunked, early end": chunked(b"5\r\nhello\r\n"),
    "8 chunked, end in a chunk": chunked(b"5\r\nhe"),
    "8 chunked, end in the last line": chunked(b"5\r\nhello\r\n0\r\n"),
    "7.1 size with a sign": chunked(b"+5\r\nhello\r\n0\r\n\r\n"),
    "7.1 0x": chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "7.1 2^64 + 5": chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "7.1 blank behind the size": chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
    "7.1 bare LF": chunked(b"5\nhello\n0\n\n"),
    "7.1 data longer than the size": chunked(b"4\r\nhello\r\n0\r\n\r\n"),
    "7.1 data shorter than the size": chunked(b"6\r\nhello\r\n0\r\n\r\n"),
    "7.1 LF in an extension": chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "7.1.2 trailer without colon": chunked(b"5\r\nhello\r\n0\r\nBroken\r\n\r\n"),
    "7.1.2 trailer Content-Length": chunked(b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"),
    "7.1.2 trailer with a bare LF": chunked(b"5\r\nhello\r\n0\r\nA: b\nC: d\r\n\r\n"),
}

# Let through: (request, bytes, status, body, the upstream's connection may be used again).
PASSED = {
    "4 no phrase": (ask(), b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "4 obs-text in the phrase": (ask(), reply(b"Content-Length: 2\r\n", b"ok", b"200 \xe4"), 200, b"ok", True),
    "4 HTTP/1.0": (ask(), b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "5 obs-text": (ask(), reply(b"A: \xe4\r\nContent-Length: 2\r\n", b"ok"), 200, b"ok", True),
    "6.1 chunked": (ask(), chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), 200, b"hello", True),
    "6.1 chunked for HTTP/1.0": (ask(version=b"1.0"), chunked(b"5\r\nhello\r\n0\r\n\r\n"), 200, b"hello", True),
    "6.3 until close": (ask(), reply(b"", b"hello"), 200, b"hello", False),
    "6.3 a reply behind the reply": (ask(), reply(b"Content-Length: 2\r\n", b"ok" + FORGED), 200, b"ok", False),
    "6.3 a reply behind the last chunk": (ask(), chunked(b"2\r\nok\r\n0\r\n\r\n" + FORGED), 200, b"ok", False),
    "6.3 HEAD with a body": (ask(b"HEAD"), reply(b"Content-Length: 83\r\n", FORGED), 200, b"", False),
    "6.3 HEAD with chunks": (ask(b"HEAD"), chunked(b"5\r\nhello\r\n0\r\n\r\n"), 200, b"", False),
    "6.3 204 with a length": (ask(), reply(b"Content-Length: 83\r\n", FORGED, b"204 No Content"), 204, b"", False),
    "6.3 204 with chunks": (ask(), reply(b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n", b"204 No Content"), 204, b"", False),
    "6.3 304 with a body": (ask(), reply(b"Content-Length: 83\r\n", FORGED, b"304 Not Modified"), 304, b"", False),
    "6.3 304 with a length": (ask(), reply(b"Content-Length: 83\r\n", b"", b"304 Not Modified"), 304, b"", True),
    "9.6 close": (ask(), reply(b"Connection: close\r\nContent-Length: 2\r\n", b"ok"), 200, b"ok", False),
    "9110-15.2 interim replies": (ask(), reply(status=b"102 Processing") + reply(b"Link: </a>\r\n", status=b"103 Early Hints") +
                                  reply(b"Content-Length: 2\r\n", b"ok"), 200, b"ok", True),
    "9110-15.2 100 that nobody asked for": (ask(), reply(status=b"100 Continue") + reply(b"Content-Length: 2\r\n", b"ok"), 200, b"ok", True),
    "9110-7.6.1 fields of one connection": (
        ask(), reply(b"Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: A\r\nUpgrade: h2c\r\n"
                     b"Content-Length: 2\r\n", b"ok"), 200, b"ok", True),
}


gate = gate_before_origin("wire-replies")


def exchange(gate, origin, request, answer, closes):
    """(final replies, what is left, closed, number of origin connections used before and after)"""
    origin.script["/x"] = Exchange([answer, None] if closes else [answer])
    received, closed = talk(gate.port, [request + NEXT])
    return received, closed


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_502(gate, origin, name, closes):
    received, closed = exchange(gate, origin, ask(), REFUSED[name], closes)
    messages, rest = grammar.read_all(received, grammar.read_response)
    finals = [message for message in messages if message.start[0] >= 200]
    assert [final.start[0] for final in finals] == [502, 200] and rest == b"" and closed, received
    assert reason(finals[0]) == "upstream_invalid" and b"orged" not in received
    assert finals[1].get("X-Origin"), "the next request is answered by its own reply"
    assert len(origin.seen()) == 2, "the connection is not used again"


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("name", CUT)
def test_cut_short_for_all_to_see(gate, origin, name, version):
    origin.script["/x"] = Exchange([CUT[name], None])
    reset = False
    with socket.create_connection(("127.0.0.1", gate.port), 10) as sock:
        sock.sendall(ask(version=version))
        received = b""
        while True:
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                reset = True
                break
            if not data:
                break
            received += data
    complete, rest = grammar.read_all(received, grammar.read_response, closed=False)
    if complete:
        assert [message.start[0] for message in complete] == [502], received
    else:
        assert rest == b"" or rest.startswith(b"HTTP/1.1 200 OK\r\n"), received
        # Without a framing that shows the cut, only a reset does.
        assert reset or b"Content-Length: " in rest or b"Transfer-Encoding: chunked" in rest, received


@pytest.mark.parametrize("name", PASSED)
def test_passed_as_one_reply(gate, origin, name):
    request, answer, status, body, reusable = PASSED[name]
    closes = name in ("6.3 until close", "9.6 close")
    received, closed = exchange(gate, origin, request, answer, closes)
    method = request.split(b" ")[0].decode()
    old = b"HTTP/1.0" in request
    used, interim = 0, []
    while True:
        message, more = grammar.read_response(received[used:], method, closed=old)
        used += more
        if message.start[0] >= 200:
            break
        interim.append(message.start[0])
    assert (message.start[0], message.body) == (status, body), received
    assert not {"x-gone", "keep-alive", "proxy-authenticate", "trailer", "upgrade"} & set(message.names())
    assert interim == ([102, 103] if "interim replies" in name else [])
    assert b"forged" not in received
    if old:
        assert received[used:] == b""
        return
    following, rest = replies(received[used:], closed)
    assert len(following) == 1 and rest == b"" and following[0].get("X-Origin"), received
    assert len(origin.seen()) == (1 if reusable else 2)


@pytest.mark.parametrize("upgrade,good", [(b"websocket", True), (b"WebSocket", True), (b"h2c", False), (b"websocket, h2c", False), (None, False)])
def test_101_only_to_what_was_offered(gate, origin, upgrade, good):
    fields = b"Connection: upgrade\r\n" + (b"Upgrade: " + upgrade + b"\r\n" if upgrade else b"")
    origin.script["/switch"] = Exchange([reply(fields, b"tunnelled", b"101 Switching Protocols"), None])
    received, _ = talk(gate.port, [ask(fields=b"Connection: upgrade\r\nUpgrade: websocket\r\n", target=b"/switch")], half_close=True)
    message, used = grammar.read_response(received)
    assert message.start[0] == (101 if good else 502), received
    if good:
        assert received[used:] == b"tunnelled" and message.get("Connection") == "upgrade"
    else:
        assert b"tunnelled" not in received


def test_connection_takes_trailers_away_too(gate, origin):
    """RFC 9110 section 7.6.1: "remove any header or trailer field(s) with the same name as the connection-option"."""
    origin.script["/x"] = Exchange([reply(b"Connection: X-Gone\r\nTransfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\nx-gone: 1\r\nX-Sum: 2\r\n\r\n")])
    finals, _ = replies(*talk(gate.port, [ask(fields=b"Connection: close\r\n")]))
    assert finals[0].body == b"ok" and finals[0].trailers == [("X-Sum", "2")]
    origin.script["/x"] = Exchange([chunked(b"2\r\nok\r\n0\r\nX-Gone: 1\r\n\r\n")])
    finals, _ = replies(*talk(gate.port, [ask(fields=b"Connection: close\r\n")]))
    assert finals[0].trailers == [("X-Gone", "1")], "what an earlier reply named means nothing for this one"


def test_what_a_route_removes_from_replies_comes_not_as_a_trailer(proxy, origin):
    gate = proxy(name="edits", upstream=origin.url, **{**settings(origin), "routes": [
        {"path_prefix": "/", "upstream": "crm", "metered": False, "reply_fields": {"remove": ["X-Secret"], "set": {"X-Frame": "deny"}}}]})
    origin.script["/x"] = Exchange([reply(b"X-Secret: 1\r\nTransfer-Encoding: chunked\r\n",
                                          b"2\r\nok\r\n0\r\nx-secret: 1\r\nX-Frame: allow\r\nX-Sum: 2\r\n\r\n")])
    finals, _ = replies(*talk(gate.port, [ask(fields=b"Connection: close\r\n")]))
    assert "x-secret" not in finals[0].names() and finals[0].get("X-Frame") == "deny"
    assert finals[0].body == b"ok" and finals[0].trailers == [("X-Sum", "2")]


def test_a_reply_without_a_byte_is_502(gate, origin):
    origin.script["/x"] = Exchange([None])
    finals, _ = replies(*talk(gate.port, [ask(fields=b"Connection: close\r\n")]))
    assert [final.start[0] for final in finals] == [502] and reason(finals[0]) == "upstream_closed"


def test_a_reply_that_does_not_come_is_504(gate, origin):
    origin.script["/x"] = Exchange([])
    finals, _ = replies(*talk(gate.port, [ask(fields=b"Connection: close\r\n")]))
    assert [final.start[0] for final in finals] == [504] and reason(finals[0]) == "upstream_timeout"


def test_a_reply_before_the_request_is_complete_ends_both_connections(gate, origin):
    origin.script["/x"] = Exchange([reply(b"Content-Length: 2\r\n", b"no", b"413 Content Too Large")], when="head")
    received, closed = talk(gate.port, [ask(b"POST", b"Content-Length: 900\r\n"), b"x" * 100], pause=0.05)
    finals, rest = replies(received, closed)
    assert [final.start[0] for final in finals] == [413] and finals[0].get("Connection") == "close" and closed and rest == b""
    origin.script.clear()
    assert replies(*talk(gate.port, [NEXT]))[0][0].start[0] == 200
    assert [request.start[1] for request in origin.requests()] == ["/next"]


# ---------------------------------------------------------------- property

PIECES = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b",", b";", b"0\r\n\r\n", b"2\r\nok\r\n", b"Transfer-Encoding: chunked\r\n",
          b"Content-Length: 2\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n", b"Connection: X-A\r\n", b"Upgrade: websocket\r\n", FORGED,
          b"HTTP/1.1 103 Early\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n", b"204", b"101", b"\xff", b"chunked, ", b"HTTP/1.0"]
BASES = [
    reply(b"Content-Length: 2\r\nA: b\r\n", b"ok"), chunked(b"2\r\nok\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), reply(b"A: b\r\n", b"until close"),
    reply(status=b"204 No Content"), reply(b"ETag: \"a\"\r\n", status=b"304 Not Modified"), reply(status=b"103 Early Hints") + reply(b"Content-Length: 2\r\n", b"ok"),
    reply(b"Connection: X-A, close\r\nX-A: 1\r\nContent-Length: 0\r\n"),
]


def mutate(message, chance):
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(message) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(message):
            message = message[:at] + bytes([chance.randrange(256)]) + message[at + 1:]
        elif kind == 1:
            message = message[:at] + message[at + chance.randint(1, 6):]
        elif kind in (2, 3):
            message = message[:at] + chance.choice(PIECES) + message[at:]
        else:
            lines = message.split(b"\r\n")
            lines.insert(chance.randrange(len(lines)), chance.choice(lines))
            message = b"\r\n".join(lines)
    return message


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_upstream_says_the_client_reads_one_reply_or_a_cut(gate, origin, seed):
    chance = random.Random(1000 + seed)
    for number in range(150):
        origin.reset()
        answer = mutate(chance.choice(BASES), chance)
        method = chance.choice([b"GET", b"GET", b"HEAD", b"POST"])
        context = f"seed {seed}, reply {number} to {method}: {answer!r}"
        origin.script["/x"] = Exchange([answer, None])
        received, closed = talk(gate.port, [ask(method, b"Content-Length: 0\r\n" if method == b"POST" else b"") + NEXT], timeout=15 * PATIENCE)
        assert closed, context
        at, read = 0, []
        try:
            for wanted in (method.decode(), "GET"):
                while at < len(received):
                    message, used = grammar.read_response(received[at:], wanted)
                    at += used
                    if message.start[0] >= 200:
                        read.append(message)
                        break
        except grammar.Incomplete:
            assert len(read) == 0, f"a cut reply may be followed by nothing; {context}; {received!r}"
            continue
        except grammar.Invalid as error:
            pytest.fail(f"{error}; {context}; {received!r}")
        assert at == len(received), f"bytes behind the replies; {context}; {received!r}"
        if len(read) == 2:
            assert read[1].get("X-Origin") and read[1].get("X-Forged") is None, f"{context}; {received!r}"
