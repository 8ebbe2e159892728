"""What one strict peer would reject as ambiguous, the proxy rejects: 400 (or a sibling), the connection ends, and
nothing of it reaches the upstream."""
import pytest

from http1 import Closed

HOST = b"Host: crm.test\r\n"
TAIL = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: crm.test\r\n\r\n"

# name -> (request bytes, acceptable statuses)
PROBES = {
    "content-length-and-chunked": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" + TAIL, {400}),
    "chunked-and-content-length": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n" + TAIL, {400}),
    "two-content-lengths": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", {400}),
    "content-length-list": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 6\r\n\r\nhello!", {400}),
    "content-length-plus": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello", {400}),
    "content-length-minus": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", {400}),
    "content-length-hex": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\nhello", {400}),
    "content-length-empty": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n\r\nhello", {400}),
    "content-length-huge": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\nhello", {400, 413}),
    "content-length-inner-space": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1 1\r\n\r\nhello", {400}),
    "space-before-colon": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\nhello", {400}),
    "space-before-te-colon": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n" + TAIL, {400}),
    "te-identity": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", {400, 501}),
    "te-chunked-twice": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + TAIL, {400, 501}),
    "te-chunked-not-last": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + TAIL, {400, 501}),
    "te-two-fields": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + TAIL, {400, 501}),
    "te-xchunked": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n" + TAIL, {400, 501}),
    "te-quoted": (b"POST /echo HTTP/1.1\r\n" + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n' + TAIL, {400, 501}),
    "te-vertical-tab": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + TAIL, {400, 501}),
    "te-null": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\x00\r\n\r\n" + TAIL, {400}),
    "te-in-http-1.0": (b"POST /echo HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + TAIL, {400}),
    "obs-fold": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + TAIL, {400}),
    "obs-fold-first": (b"GET /echo HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n", {400}),
    "bare-lf": (b"GET /echo HTTP/1.1\nHost: crm.test\n\n", {400}),
    "bare-lf-in-field": (b"GET /echo HTTP/1.1\r\n" + HOST + b"X: a\nContent-Length: 5\r\n\r\n", {400}),
    "bare-cr-in-field": (b"GET /echo HTTP/1.1\r\n" + HOST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n", {400}),
    "null-in-field": (b"GET /echo HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", {400}),
    "null-in-target": (b"GET /echo\x00 HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "empty-field-name": (b"GET /echo HTTP/1.1\r\n" + HOST + b": x\r\n\r\n", {400}),
    "field-without-colon": (b"GET /echo HTTP/1.1\r\n" + HOST + b"Broken\r\n\r\n", {400}),
    "bad-field-name": (b"GET /echo HTTP/1.1\r\n" + HOST + b"X(Y): x\r\n\r\n", {400}),
    "no-host": (b"GET /echo HTTP/1.1\r\n\r\n", {400}),
    "two-hosts": (b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    "bad-host": (b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", {400}),
    "host-contradicts-target": (b"GET http://other.test/echo HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "two-spaces-in-request-line": (b"GET  /echo HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "tab-in-request-line": (b"GET\t/echo HTTP/1.1\r\n" + HOST + b"\r\n", {400, 501}),
    "trailing-space-in-request-line": (b"GET /echo HTTP/1.1 \r\n" + HOST + b"\r\n", {400, 505}),
    "http-0.9": (b"GET /echo\r\n\r\n", {400}),
    "http-1.2": (b"GET /echo HTTP/1.2\r\n" + HOST + b"\r\n", {400, 505}),
    "http-2.0": (b"GET /echo HTTP/2.0\r\n" + HOST + b"\r\n", {400, 505}),
    "lower-case-version": (b"GET /echo http/1.1\r\n" + HOST + b"\r\n", {400, 505}),
    "bad-method": (b"G(T /echo HTTP/1.1\r\n" + HOST + b"\r\n", {400, 501}),
    "chunk-size-sign": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n" + TAIL, {400}),
    "chunk-size-0x": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n" + TAIL, {400}),
    "chunk-size-empty": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n" + TAIL, {400}),
    "chunk-size-overflow": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n" + TAIL, {400, 413}),
    "chunk-size-space": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n" + TAIL, {400}),
    "chunk-data-too-long": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!!\r\n" + TAIL, {400}),
    "chunk-bare-lf": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", {400}),
    "chunk-extension-lf": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n" + TAIL, {400}),
    "trailer-content-length": (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nBad Trailer\r\n\r\n", {400}),
    "connect": (b"CONNECT crm.test:80 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 501}),
    "encoded-slash": (b"GET /0/odata%2fCase HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "encoded-backslash": (b"GET /0/odata/..%5c..%5cCase HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "encoded-null": (b"GET /0/odata/Case%00 HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "bad-escape": (b"GET /0/odata/%zz HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "raw-high-byte-in-target": (b"GET /0/odata/\xff HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
}

# Refused once the head was already streaming: the upstream may have seen the start of this very request, never another.
STREAMED = {name for name in PROBES if name.startswith(("chunk-", "trailer-"))}

# The framing of these is beyond doubt, only their path is not: the connection may live on.
PATHS = {"encoded-slash", "encoded-backslash", "encoded-null", "bad-escape"}


@pytest.mark.parametrize("name", sorted(PROBES))
def test_an_ambiguous_request_is_refused(gate, crm, name):
    request, statuses = PROBES[name]
    with gate.client(timeout=10) as client:
        client.send(request)
        try:
            reply = client.read()
        except Closed:
            assert name in STREAMED, "closed without a reply"
        else:
            assert reply.status in statuses, reply
            assert name in PATHS or client.closed_by_peer(), "the connection must not carry another request"
    targets = [target for target in crm.targets() if name not in STREAMED or not target.endswith(" /echo")]
    assert targets == []


def test_a_good_request_before_a_bad_one_is_still_answered(gate, crm):
    with gate.client() as client:
        client.send(b"GET /bytes/3 HTTP/1.1\r\n" + HOST + b"\r\n" + PROBES["two-content-lengths"][0])
        assert client.read().body == b"012"
        assert client.read().status == 400
        assert client.closed_by_peer()


def test_equal_content_lengths_do_not_smuggle(gate, crm):
    """RFC 9110 section 8.6 lets a recipient refuse or merge them: both are safe, two requests are not."""
    with gate.client() as client:
        client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")
        reply = client.read()
        assert reply.status in (200, 400)
    assert len(crm.targets()) <= 1


def test_the_upstream_sees_one_framing_field_only(gate, crm):
    for kwargs in ({"body": b"hello"}, {"chunked": [b"hello"]}):
        fields = [name.lower() for name, _ in gate.call("POST", "/echo", **kwargs).json()["headers"]]
        assert fields.count("content-length") + fields.count("transfer-encoding") == 1


def test_a_reply_cannot_be_split_by_what_a_client_sends(gate, crm):
    reply = gate.call("GET", "/0/odata/Case%0d%0aX-Injected:%201")
    assert reply.get("X-Injected") is None
