"""Hostile requests, by section of the RFCs: the status of each, and what of it reaches the upstream. The origin is a bare socket
that keeps every byte; what reaches it is read by the grammar (grammar.py) and must be one canonical request, or nothing."""
import random
import socket
import time

import pytest

import grammar
from harness import PATIENCE, bearer, eventually, token
from origin import OK, Exchange
from wire import clean, gate_before_origin, origin, reason, replies, settings, talk  # noqa: F401: fixtures among them

H = b"Host: crm.test\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: crm.test\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: crm.test\r\n\r\n"


def get(fields=b"", target=b"/x"):
    return b"GET " + target + b" HTTP/1.1\r\n" + H + fields + b"\r\n"


def post(fields, body=b"", target=b"/x"):
    return b"POST " + target + b" HTTP/1.1\r\n" + H + fields + b"\r\n" + body


def chunked(body, fields=b""):
    return post(fields + b"Transfer-Encoding: chunked\r\n", body)


# section -> {name: (bytes, status)}. Refused: one reply with that status, the connection closed, no request at the origin.
REFUSED = {
    "9112-2.2 message parsing": {
        "bare LF everywhere": (b"GET /x HTTP/1.1\nHost: crm.test\n\n", 400),
        "bare LF after the request line": (b"GET /x HTTP/1.1\nHost: crm.test\r\n\r\n", 400),
        "bare LF after a field": (get(b"A: b\nC: d\r\n"), 400),
        "bare LF as the empty line": (b"GET /x HTTP/1.1\r\nHost: crm.test\r\n\n", 400),
        "LF CR": (b"GET /x HTTP/1.1\n\rHost: crm.test\n\r\n\r", 400),
        "bare CR after the request line": (b"GET /x HTTP/1.1\rHost: crm.test\r\n\r\n", 400),
        "bare CR in a value": (get(b"A: b\rC: d\r\n"), 400),
        "bare CR before CRLF": (get(b"A: b\r\r\n"), 400),
        "CR in a name": (get(b"A\r: b\r\n"), 400),
        "blank before the first field": (b"GET /x HTTP/1.1\r\n " + H + b"\r\n", 400),
        "tab before the first field": (b"GET /x HTTP/1.1\r\n\tA: b\r\n" + H + b"\r\n", 400),
        "blanks as the empty line": (b"GET /x HTTP/1.1\r\n" + H + b" \r\n\r\n", 400),
        "many empty lines first": (b"\r\n" * 9 + get(), 400),
        "space before the method": (b" " + get(), 400),
        "byte order mark": (b"\xef\xbb\xbf" + get(), 400),
        "NUL first": (b"\x00" + get(), 400),
        "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), 400),
        "SSH banner": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        "reply as a request": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
        "PROXY line": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(), 400),
    },
    "9112-2.3 version": {
        "HTTP/0.9": (b"GET /x\r\n\r\n", 400),
        "HTTP/0.9 with a blank": (b"GET /x \r\n\r\n", 400),
        "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400),
        "HTTP/2.0": (b"GET /x HTTP/2.0\r\n" + H + b"\r\n", 400),
        "HTTP/3.0": (b"GET /x HTTP/3.0\r\n" + H + b"\r\n", 400),
        "HTTP/1.2": (b"GET /x HTTP/1.2\r\n" + H + b"\r\n", 400),
        "HTTP/1.10": (b"GET /x HTTP/1.10\r\n" + H + b"\r\n", 400),
        "HTTP/01.1": (b"GET /x HTTP/01.1\r\n" + H + b"\r\n", 400),
        "HTTP/1.": (b"GET /x HTTP/1.\r\n" + H + b"\r\n", 400),
        "HTTP/1": (b"GET /x HTTP/1\r\n" + H + b"\r\n", 400),
        "HTTP/1,1": (b"GET /x HTTP/1,1\r\n" + H + b"\r\n", 400),
        "HTTP /1.1": (b"GET /x HTTP /1.1\r\n" + H + b"\r\n", 400),
        "lower case": (b"GET /x http/1.1\r\n" + H + b"\r\n", 400),
        "HTTPS/1.1": (b"GET /x HTTPS/1.1\r\n" + H + b"\r\n", 400),
        "RTSP/1.0": (b"OPTIONS /x RTSP/1.0\r\n" + H + b"\r\n", 400),
        "two versions": (b"GET /x HTTP/1.1 HTTP/1.1\r\n" + H + b"\r\n", 400),
        "blank behind": (b"GET /x HTTP/1.1 \r\n" + H + b"\r\n", 400),
        "tab before": (b"GET /x\tHTTP/1.1\r\n" + H + b"\r\n", 400),
    },
    "9112-3 request line": {
        "two blanks before the target": (b"GET  /x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "two blanks before the version": (b"GET /x  HTTP/1.1\r\n" + H + b"\r\n", 400),
        "tab": (b"GET\t/x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "vertical tab": (b"GET\x0b/x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "no method": (b" /x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "method with a colon": (b"GE:T /x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "method with a high byte": (b"GET\xff /x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "method with NUL": (b"GET\x00 /x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "no target": (b"GET HTTP/1.1\r\n" + H + b"\r\n", 400),
        "blank in the target": (b"GET /x y HTTP/1.1\r\n" + H + b"\r\n", 400),
        "CONNECT": (b"CONNECT crm.test:443 HTTP/1.1\r\n" + H + b"\r\n" + SMUGGLED, 501),
        "CONNECT with a path": (b"CONNECT /x HTTP/1.1\r\n" + H + b"\r\n", 501),
        "TRACE": (b"TRACE /x HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n", 501),
        "TRACK": (b"TRACK /x HTTP/1.1\r\n" + H + b"\r\n", 501),
        "trace": (b"trace /x HTTP/1.1\r\n" + H + b"\r\n", 501),
        "long target": (get(target=b"/" + b"x" * 3000), 414),
        "long method": (b"M" * 3000 + b" / HTTP/1.1\r\n" + H + b"\r\n", 414),
        "endless request line": (b"GET /" + b"x" * 20000, 414),
    },
    "9112-3.2 target": {
        "fragment": (get(target=b"/x#y"), 400),
        "no slash": (get(target=b"x"), 400),
        "question mark alone": (get(target=b"?x"), 400),
        "star with GET": (get(target=b"*"), 400),
        "star with more": (b"OPTIONS *x HTTP/1.1\r\n" + H + b"\r\n", 400),
        "authority form": (get(target=b"crm.test:80"), 400),
        "other scheme": (get(target=b"ftp://crm.test/x"), 400),
        "file": (get(target=b"file:///etc/passwd"), 400),
        "scheme without slashes": (get(target=b"http:crm.test/x"), 400),
        "absolute form without host": (get(target=b"http:///x"), 400),
        "absolute form with another host": (get(target=b"http://other.test/x"), 400),
        "absolute form with another port": (get(target=b"http://crm.test:81/x"), 400),
        "absolute form, port of the other scheme": (get(target=b"https://crm.test:80/x"), 400),
        "absolute form with a user": (get(target=b"http://a@crm.test/x"), 400),
        "absolute form with a user that looks like the host": (get(target=b"http://crm.test@other.test/x"), 400),
        "absolute form with a comma": (get(target=b"http://crm.test,other.test/x"), 400),
        "absolute form with a backslash": (get(target=b"http://crm.test\\@other.test/x"), 400),
        "absolute form, encoded host": (get(target=b"http://crm%2etest/x"), 400),
        "bad escape": (get(target=b"/%zz"), 400),
        "half an escape": (get(target=b"/%4"), 400),
        "encoded NUL": (get(target=b"/x%00"), 400),
        "encoded NUL in the query": (get(target=b"/x?a=%00"), 400),
        "raw high byte": (get(target=b"/\xc3\xa4"), 400),
        "DEL": (get(target=b"/\x7f"), 400),
        "backslash": (get(target=b"/a\\b"), 400),
    },
    "9112-3.2 Host": {
        "none": (b"GET /x HTTP/1.1\r\n\r\n", 400),
        "empty": (b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", 400),
        "two, equal": (get(H), 400),
        "two, different": (get(b"Host: other.test\r\n"), 400),
        "two, other case": (get(b"hOST: crm.test\r\n"), 400),
        "list": (b"GET /x HTTP/1.1\r\nHost: crm.test, other.test\r\n\r\n", 400),
        "blank inside": (b"GET /x HTTP/1.1\r\nHost: crm.test other.test\r\n\r\n", 400),
        "path": (b"GET /x HTTP/1.1\r\nHost: crm.test/y\r\n\r\n", 400),
        "user": (b"GET /x HTTP/1.1\r\nHost: a@crm.test\r\n\r\n", 400),
        "scheme": (b"GET /x HTTP/1.1\r\nHost: http://crm.test\r\n\r\n", 400),
        "port no number": (b"GET /x HTTP/1.1\r\nHost: crm.test:x\r\n\r\n", 400),
        "port negative": (b"GET /x HTTP/1.1\r\nHost: crm.test:-80\r\n\r\n", 400),
        "port too large": (b"GET /x HTTP/1.1\r\nHost: crm.test:65536\r\n\r\n", 400),
        "two ports": (b"GET /x HTTP/1.1\r\nHost: crm.test:80:80\r\n\r\n", 400),
        "bare IPv6": (b"GET /x HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
        "open bracket": (b"GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        "NUL": (b"GET /x HTTP/1.1\r\nHost: crm\x00.test\r\n\r\n", 400),
        "high byte": (b"GET /x HTTP/1.1\r\nHost: crm\xff.test\r\n\r\n", 400),
        "blank before the colon": (b"GET /x HTTP/1.1\r\nHost : crm.test\r\n\r\n", 400),
        "two in HTTP/1.0": (b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        "bad in HTTP/1.0": (b"GET /x HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
    },
    "9112-5 field lines": {
        "no colon": (get(b"Broken\r\n"), 400),
        "no name": (get(b": x\r\n"), 400),
        "blank before the colon": (get(b"A : x\r\n"), 400),
        "tab before the colon": (get(b"A\t: x\r\n"), 400),
        "blank in a name": (get(b"A B: x\r\n"), 400),
        "fold": (get(b"A: x\r\n y\r\n"), 400),
        "fold by a tab": (get(b"A: x\r\n\ty\r\n"), 400),
        "fold of nothing": (get(b"A:\r\n \r\n"), 400),
        "name in parentheses": (get(b"A(B): x\r\n"), 400),
        "name with a slash": (get(b"A/B: x\r\n"), 400),
        "name with a high byte": (get(b"A\xe4: x\r\n"), 400),
        "name with NUL": (get(b"A\x00: x\r\n"), 400),
        "value with NUL": (get(b"A: x\x00y\r\n"), 400),
        "value with backspace": (get(b"A: x\x08y\r\n"), 400),
        "value with escape": (get(b"A: x\x1by\r\n"), 400),
        "value with vertical tab": (get(b"A: x\x0by\r\n"), 400),
        "value with form feed": (get(b"A: x\x0cy\r\n"), 400),
        "value with DEL": (get(b"A: x\x7fy\r\n"), 400),
        "large field": (get(b"A: " + b"x" * 9000 + b"\r\n"), 431),
        "many fields": (get(b"A: x\r\n" * 40), 431),
        "endless head": (b"GET /x HTTP/1.1\r\n" + H + b"A: " + b"x" * 20000, 431),
    },
    "9112-6.1 Transfer-Encoding": {
        "CL.TE": (post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED), 400),
        "TE.CL": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"5c\r\n" + SMUGGLED + b"0\r\n\r\n"), 400),
        "CL 0 and TE": (post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED), 400),
        "TE.TE two fields": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", b"0\r\n\r\n" + SMUGGLED), 400),
        "TE.TE other case": (post(b"Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n", b"0\r\n\r\n" + SMUGGLED), 400),
        "TE.TE equal": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
        "chunked twice": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
        "chunked not last": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), 400),
        "identity": (post(b"Transfer-Encoding: identity\r\n", b""), 400),
        "identity, chunked": (post(b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n"), 400),
        "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
        "gzip": (post(b"Transfer-Encoding: gzip\r\n", b""), 400),
        "unknown": (post(b"Transfer-Encoding: cow, chunked\r\n", b"0\r\n\r\n"), 400),
        "empty": (post(b"Transfer-Encoding:\r\n", b"0\r\n\r\n"), 400),
        "comma first": (post(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n"), 400),
        "comma last": (post(b"Transfer-Encoding: chunked,\r\n", b"0\r\n\r\n"), 400),
        "xchunked": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
        "chunkedx": (post(b"Transfer-Encoding: chunkedx\r\n", b"0\r\n\r\n"), 400),
        "quoted": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 400),
        "single quotes": (post(b"Transfer-Encoding: 'chunked'\r\n", b"0\r\n\r\n"), 400),
        "parameter": (post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), 400),
        "vertical tab": (post(b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"), 400),
        "NUL": (post(b"Transfer-Encoding: chunked\x00\r\n", b"0\r\n\r\n"), 400),
        "high byte": (post(b"Transfer-Encoding: chunked\xa0\r\n", b"0\r\n\r\n"), 400),
        "bare CR before": (post(b"X: y\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
        "bare LF before": (post(b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
        "fold": (post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), 400),
        "folded behind": (post(b"Transfer-Encoding: chunked\r\n , identity\r\n", b"0\r\n\r\n"), 400),
        "blank before the colon": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
        "blank before the name": (post(b"X: y\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
        "HTTP/1.0": (b"POST /x HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    },
    "9112-6.2 Content-Length": {
        "two, different": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"), 400),
        "two, equal": (post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
        "list, different": (post(b"Content-Length: 5, 6\r\n", b"hello!"), 400),
        "list, equal": (post(b"Content-Length: 5, 5\r\n", b"hello"), 400),
        "plus": (post(b"Content-Length: +5\r\n", b"hello"), 400),
        "minus": (post(b"Content-Length: -5\r\n", b"hello"), 400),
        "minus zero": (post(b"Content-Length: -0\r\n"), 400),
        "hexadecimal": (post(b"Content-Length: 0x5\r\n", b"hello"), 400),
        "exponent": (post(b"Content-Length: 5e0\r\n", b"hello"), 400),
        "point": (post(b"Content-Length: 5.0\r\n", b"hello"), 400),
        "blank inside": (post(b"Content-Length: 1 0\r\n", b"hello"), 400),
        "underscore inside": (post(b"Content-Length: 1_0\r\n", b"hello"), 400),
        "empty": (post(b"Content-Length:\r\n", b"hello"), 400),
        "words": (post(b"Content-Length: five\r\n", b"hello"), 400),
        "quoted": (post(b'Content-Length: "5"\r\n', b"hello"), 400),
        "other digits": (post("Content-Length: \u0665\r\n".encode(), b"hello"), 400),
        "2^63": (post(b"Content-Length: 9223372036854775808\r\n"), 400),
        "2^64 + 5": (post(b"Content-Length: 18446744073709551621\r\n", b"hello"), 400),
        "NUL behind": (post(b"Content-Length: 5\x00\r\n", b"hello"), 400),
        "blank before the colon": (post(b"Content-Length : 5\r\n", b"hello"), 400),
        "beyond max_body": (post(b"Content-Length: 1025\r\n", b"x" * 1025), 413),
    },
    "9110-7.6.1 Connection": {
        "names Host": (get(b"Connection: Host\r\n"), 400),
        "names Content-Length": (post(b"Content-Length: 5\r\nConnection: content-length\r\n", b"hello"), 400),
        "names Transfer-Encoding": (chunked(b"0\r\n\r\n", b"Connection: Transfer-Encoding\r\n"), 400),
        "names Authorization": (get(b"Authorization: Bearer a\r\nConnection: close, authorization\r\n"), 400),
        "names Cookie": (get(b"Cookie: a=b\r\nConnection: Cookie\r\n"), 400),
        "names X-Forwarded-For": (get(b"Connection: X-Forwarded-For\r\n"), 400),
        "names X_Forwarded_For": (get(b"Connection: X_Forwarded_For\r\n"), 400),
        "names X-Real-IP": (get(b"Connection: X-Real-IP\r\n"), 400),
        "names Forwarded": (get(b"Connection: Forwarded\r\n"), 400),
        "names X-Request-Id": (get(b"Connection: X-Request-Id\r\n"), 400),
        "names the second time": (get(b"Connection: close\r\nConnection: Host\r\n"), 400),
        "is no token": (get(b"Connection: close;foo\r\n"), 400),
        "is quoted": (get(b'Connection: "close"\r\n'), 400),
        "too many options": (get(b"Connection: " + b"a," * 100 + b"\r\n"), 400),
    },
    "9110 singletons": {
        "Authorization twice": (get(b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400),
        "Content-Type twice": (post(b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n"), 400),
        "X-HTTP-Method-Override twice": (get(b"X-HTTP-Method-Override: PUT\r\nX-HTTP-Method-Override: GET\r\n"), 400),
        "Expect of something else": (post(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello"), 400),
        "Expect twice": (post(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", b"hello"), 400),
    },
}

# Refused in the body: the head may have left already, but never a whole request.
BODY_REFUSED = {
    "bare LF after the size": (b"5\nhello\r\n0\r\n\r\n", 400),
    "bare LF after the data": (b"5\r\nhello\n0\r\n\r\n", 400),
    "bare CR after the size": (b"5\rhello\r\n0\r\n\r\n", 400),
    "bare LF at the end": (b"5\r\nhello\r\n0\n\n", 400),
    "bare LF in an extension": (b"5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    "bare CR in an extension": (b"5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
    "CRLF in a quoted extension": (b'5;a="b\r\nc"\r\nhello\r\n0\r\n\r\n', 400),
    "extension that hides a size": (b"2;\n64\r\nab\r\n0\r\n\r\n" + SMUGGLED, 400),
    "extension without name": (b"5;\r\nhello\r\n0\r\n\r\n", 400),
    "extension without value": (b"5;a=\r\nhello\r\n0\r\n\r\n", 400),
    "extension open quote": (b'5;a="b\r\nhello\r\n0\r\n\r\n', 400),
    "blank behind the size": (b"5 \r\nhello\r\n0\r\n\r\n", 400),
    "blank before the size": (b" 5\r\nhello\r\n0\r\n\r\n", 400),
    "NUL behind the size": (b"5\x00\r\nhello\r\n0\r\n\r\n", 400),
    "sign": (b"+5\r\nhello\r\n0\r\n\r\n", 400),
    "minus": (b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "0x": (b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "no size": (b"\r\nhello\r\n0\r\n\r\n", 400),
    "empty line before the size": (b"\r\n5\r\nhello\r\n0\r\n\r\n", 400),
    "underscore": (b"0_5\r\nhello\r\n0\r\n\r\n", 400),
    "17 digits": (b"00000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    "2^64 + 5": (b"10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    "2^63": (b"8000000000000000\r\nhello\r\n0\r\n\r\n", 400),
    "data longer than the size": (b"4\r\nhello\r\n0\r\n\r\n", 400),
    "data shorter than the size": (b"6\r\nhello\r\n0\r\n\r\n", 400),
    "no CRLF behind the data": (b"5\r\nhello0\r\n\r\n", 400),
    "long size line": (b"5;" + b"a" * 2000 + b"\r\nhello\r\n0\r\n\r\n", 400),
    "extensions without end": (b"1;" + b"a" * 900 + b"\r\nx\r\n", 400),
    "beyond max_body": (b"401\r\n" + b"x" * 0x401 + b"\r\n0\r\n\r\n", 413),
    "beyond max_body in sum": (b"200\r\n" + b"x" * 0x200 + b"\r\n" + b"201\r\n" + b"x" * 0x201 + b"\r\n0\r\n\r\n", 413),
    "trailer without colon": (b"0\r\nBroken\r\n\r\n", 400),
    "trailer folded": (b"0\r\nA: b\r\n c\r\n\r\n", 400),
    "trailer with a blank before the colon": (b"0\r\nA : b\r\n\r\n", 400),
    "trailer with NUL": (b"0\r\nA: b\x00\r\n\r\n", 400),
    "trailer with a bare LF": (b"0\r\nA: b\nC: d\r\n\r\n", 400),
    "trailer Content-Length": (b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "trailer Transfer-Encoding": (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "trailer Transfer_Encoding": (b"0\r\nTransfer_Encoding: chunked\r\n\r\n", 400),
    "trailer Host": (b"0\r\nHost: other.test\r\n\r\n", 400),
    "trailers too large": (b"0\r\n" + b"A: " + b"x" * 9000 + b"\r\n\r\n", 431),
    "trailers too many": (b"0\r\n" + b"A: b\r\n" * 40 + b"\r\n", 431),
}
BODY_REFUSED["extensions without end"] = (BODY_REFUSED["extensions without end"][0] * 40, 400)


gate = gate_before_origin("wire")


def names(table):
    return [(section, name) for section, cases in table.items() for name in cases]


@pytest.mark.parametrize("section,name", names(REFUSED))
def test_refused_before_the_upstream(gate, origin, section, name):
    message, status = REFUSED[section][name]
    for pieces in ([message + NEXT], [message[:len(message) // 2], message[len(message) // 2:] + NEXT]):
        received, closed = talk(gate.port, pieces, half_close=True)
        finals, rest = replies(received, closed)
        assert [final.start[0] for final in finals] == [status] and rest == b"", received
        assert closed and reason(finals[0]) is not None and finals[0].get("Connection") == "close"
    assert origin.seen() == [], "not a byte"


@pytest.mark.parametrize("name", BODY_REFUSED)
def test_refused_in_the_body(gate, origin, name):
    body, status = BODY_REFUSED[name]
    received, closed = talk(gate.port, [chunked(body + NEXT)], half_close=True)
    finals, rest = replies(received, closed)
    assert [final.start[0] for final in finals] == [status] and rest == b"" and closed, received
    assert origin.requests() == [] and origin.invalid() == []


# What is let through, and how it looks then: (bytes, status, checks of the request at the origin).
def has(**expected):
    def check(request):
        for name, value in expected.items():
            assert request.get(name.replace("_", "-")) == value, (name, request.fields)
    return check


def lacks(*absent):
    def check(request):
        assert not set(absent) & set(request.names()), request.fields
    return check


def body_is(body, framing):
    def check(request):
        assert (request.body, request.framing) == (body, framing)
    return check


def target_is(target):
    def check(request):
        assert request.start[1] == target
    return check


def trailers_are(*wanted):
    def check(request):
        assert request.trailers == list(wanted)
    return check


VOUCHED = ["Client-Cert", "Client_Cert", "Client-Cert-Chain", "X-ARR-ClientCert", "X-ARR-SSL", "MS-ASPNETCORE-CLIENTCERT",
           "MS-ASPNETCORE-WINAUTHTOKEN", "X-Original-Proto", "X-Amzn-Mtls-Clientcert", "X-SSL-Cert", "OIDC_CLAIM_sub"]

PASSED = {
    "9112-2.2 one empty line first": (b"\r\n" + get(), [target_is("/x")]),
    "9112-3.2.1 empty port": (b"GET /x HTTP/1.1\r\nHost: crm.test:\r\n\r\n", [has(Host="crm.test")]),
    "9112-3.2.2 absolute form": (get(target=b"http://crm.test/x?y=1"), [target_is("/x?y=1"), has(Host="crm.test")]),
    "9112-3.2.2 absolute form, default port": (get(target=b"http://CRM.test:80/x"), [target_is("/x"), has(Host="CRM.test:80")]),
    "9112-3.2.2 absolute form without path": (get(target=b"http://crm.test?y"), [target_is("/?y")]),
    "9112-3.2.4 OPTIONS star": (b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", [target_is("*")]),
    "9112-3.2.4 OPTIONS of a server": (b"OPTIONS http://crm.test HTTP/1.1\r\n" + H + b"\r\n", [target_is("*")]),
    "9112-5 no blank behind the colon": (get(b"A:b\r\n"), [has(A="b")]),
    "9112-5 blanks around a value": (get(b"A: \t b c \t\r\n"), [has(A="b c")]),
    "9112-5 empty value": (get(b"A:\r\n"), [has(A="")]),
    "9112-5 obs-text": (get(b"A: \xe4\r\n"), [has(A="\xe4")]),
    "9112-6.1 chunked in other case": (post(b"Transfer-Encoding: ChUnKeD\r\n", b"5\r\nhello\r\n0\r\n\r\n"), [body_is(b"hello", "chunked")]),
    "9112-6.2 leading zeros": (post(b"Content-Length: 0005\r\n", b"hello"), [body_is(b"hello", "length"), has(Content_Length="5")]),
    "9112-6.3 CL.0 on GET": (b"GET /x HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, [body_is(SMUGGLED, "length")]),
    "9112-6.3 DELETE with a body": (b"DELETE /x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", [body_is(b"hello", "length")]),
    "9112-6.3 POST without framing": (post(b""), [body_is(b"", "none"), lacks("content-length", "transfer-encoding")]),
    "9112-7.1.1 extensions go": (chunked(b'5;a;b=c ; d = "e\\"f"\r\nhello\r\n0;z\r\n\r\n'), [body_is(b"hello", "chunked")]),
    "9112-7.1.2 trailers": (chunked(b"0\r\nX-Sum: 1\r\n\r\n"), [trailers_are(("X-Sum", "1"))]),
    "9110-6.5.1 trailers that route or authenticate go": (
        chunked(b"0\r\nAuthorization: Bearer a\r\nX-Forwarded-For: 6.6.6.6\r\nCookie: a=b\r\nConnection: close\r\nX-Request-Id: abcdefgh\r\n"
                b"X-Access-Token: forged\r\nX_Access_Token: forged\r\nContent-Type: a/b\r\nX-HTTP-Method: PUT\r\nX-Sum: 1\r\n\r\n"),
        [trailers_are(("X-Sum", "1"))]),
    "9110-6.5.1 trailers that Connection names go": (chunked(b"0\r\nX-Gone: 1\r\nX-Sum: 1\r\n\r\n", b"Connection: x-gone\r\n"),
                                                     [trailers_are(("X-Sum", "1"))]),
    "9110-7.6.1 what Connection names goes": (get(b"Connection: keep-alive, X-Gone ,,x-gone-too\r\nx-gone: 1\r\nX-Gone-Too: 2\r\nX-Stays: 3\r\n"),
                                              [lacks("x-gone", "x-gone-too", "connection"), has(X_Stays="3")]),
    "9110-7.6.1 fields of one connection go": (
        get(b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nProxy: evil\r\nTrailer: A\r\n"
            b"TE: gzip\r\nUpgrade: websocket\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"),
        [lacks("keep-alive", "proxy-connection", "proxy-authorization", "proxy", "trailer", "te", "upgrade", "http2-settings", "connection")]),
    "9110-10.1.4 TE: trailers is written anew": (get(b"TE: trailers, gzip;q=0.5\r\nConnection: TE\r\n"), [has(TE="trailers", Connection="TE")]),
    "9110-7.8 Upgrade where the route forbids it": (get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"),
                                                    [lacks("upgrade", "connection")]),
    "9110-7.8 h2c never": (get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n", b"/switch"),
                           [lacks("upgrade", "connection", "http2-settings")]),
    "9110-7.8 TLS never": (get(b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n", b"/switch"), [lacks("upgrade", "connection")]),
    "9110-7.8 not with a body": (post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", b"hello", b"/switch"),
                                 [lacks("upgrade", "connection")]),
    "9110-7.8 not in HTTP/1.0": (b"GET /switch HTTP/1.0\r\n" + H + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                                 [lacks("upgrade", "connection")]),
    "9110-7.6.2 Max-Forwards of OPTIONS": (b"OPTIONS /x HTTP/1.1\r\n" + H + b"Max-Forwards: 7\r\n\r\n", [has(Max_Forwards="6")]),
    "9110-10.1.1 Expect without a body": (get(b"Expect: 100-continue\r\n"), [lacks("expect")]),
    "1.0 without Host": (b"GET /x HTTP/1.0\r\n\r\n", [target_is("/x")]),
    "identity: forwarding fields of strangers": (
        get(b"X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX_Forwarded_For: 8.8.8.8\r\nX-Forwarded-Proto: gopher\r\nX-FORWARDED-HOST: evil\r\n"
            b"Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Real-IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\n"
            b"CF-Connecting-IP: 6.6.6.6\r\nClient-IP: 6.6.6.6\r\nX-Forwarded-User: root\r\n"),
        [has(X_Forwarded_For="127.0.0.1", X_Forwarded_Proto="http", X_Forwarded_Host="crm.test"),
         lacks("forwarded", "x-real-ip", "x_real-ip", "true-client-ip", "x-client-ip", "cf-connecting-ip", "client-ip", "x_forwarded_for",
               "x-forwarded-user")]),
    "identity: who logged in": (
        get(b"Remote-User: root\r\nREMOTE_USER: root\r\nX-Remote-User: root\r\nX-Auth-Request-User: root\r\nX-Authenticated-User: root\r\n"
            b"SSL_CLIENT_S_DN: CN=root\r\nX-SSL-Client-Verify: SUCCESS\r\nX-MS-CLIENT-PRINCIPAL: x\r\nX-Client-Cert: x\r\n"),
        [lacks("remote-user", "remote_user", "x-remote-user", "x-auth-request-user", "x-authenticated-user", "ssl_client_s_dn",
               "x-ssl-client-verify", "x-ms-client-principal", "x-client-cert")]),
    "identity: RFC 9440-2.4 certificates, and what gateways say about them": (
        get("".join(f"{name}: x\r\n" for name in VOUCHED).encode()), [lacks(*(name.lower() for name in VOUCHED))]),
    "identity: RFC 9440-2.4 certificates as trailers": (
        chunked(b"0\r\n" + "".join(f"{name}: x\r\n" for name in VOUCHED).encode() + b"X-Sum: 1\r\n\r\n"), [trailers_are(("X-Sum", "1"))]),
    "identity: other targets": (
        get(b"X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX_Original_URL: /admin\r\nX-HTTP-Host-Override: evil\r\nX-HTTP-DestinationURL: /a\r\n"),
        [lacks("x-original-url", "x-rewrite-url", "x_original_url", "x-http-host-override", "x-http-destinationurl")]),
    "identity: framing in disguise": (
        post(b"Content-Length: 5\r\nContent_Length: 50\r\ntransfer_encoding: chunked\r\nTransfer_Encoding: chunked\r\nContent_Type: a/b\r\n", b"hello"),
        [body_is(b"hello", "length"), lacks("content_length", "transfer_encoding", "content_type")]),
    "identity: disguised credentials": (get(b"X_Access_Token: forged\r\nx-access_token: forged\r\nX-Access-Token: mine\r\n"),
                                        [has(X_Access_Token="mine"), lacks("x_access_token", "x-access_token")]),
}


@pytest.mark.parametrize("name", PASSED)
def test_passed_in_canonical_form(gate, origin, name):
    message, checks = PASSED[name]
    received, closed = talk(gate.port, [message + (NEXT if b"HTTP/1.0" not in message else b"")], half_close=True)
    finals, rest = replies(received, closed)
    assert [final.start[0] for final in finals] in ([200, 200], [200]) and rest == b"", received
    assert origin.invalid() == []
    requests = origin.requests()
    assert len(requests) == len(finals)
    for check in checks:
        check(requests[0])
    if len(requests) == 2:
        assert requests[1].start[1] == "/next"


def test_connection_may_not_strip_the_credentials(gate, origin):
    received, closed = talk(gate.port, [get(b"X-Access-Token: a\r\nConnection: X-Access-Token\r\n", b"/metered") + NEXT], half_close=True)
    finals, _ = replies(received, closed)
    assert finals[0].start[0] == 400 and [request.start[1] for request in origin.requests()] == ["/next"]


def test_the_upstream_believes_the_token_that_was_metered(gate, origin):
    ann, bob = token("ann", user_type="staff"), token("bob", user_type="staff")
    fields = f"X-Access-Token: {ann}\r\nCookie: a=1; session={bob}\r\n".encode()
    finals, _ = replies(*talk(gate.port, [get(fields, b"/metered")], half_close=True))
    assert [final.start[0] for final in finals] == [200], finals[0].body
    request = origin.requests()[0]
    assert request.get("X-Access-Token") == ann and request.get("Cookie") == "a=1"


@pytest.mark.parametrize("metered", [False, True], ids=["streamed", "inspected"])
def test_what_a_route_removes_or_sets_comes_neither_as_a_trailer_nor_in_another_spelling(proxy, origin, metered):
    gate = proxy(name="edits", upstream=origin.url, workers=1, **{**settings(origin), "routes": [
        {"path_prefix": "/", "upstream": "crm", "metered": metered,
         "request_fields": {"remove": ["X-Debug"], "set": {"X-Tenant": "acme"}}}]})
    fields = b"X-Debug: 1\r\nX_Debug: 1\r\nX-Tenant: evil\r\nX_Tenant: evil\r\nx_tenant: evil\r\nTransfer-Encoding: chunked\r\n"
    target = b"/x"
    if metered:  # a batch is held until it has been read as a whole
        fields += b"Content-Type: application/json\r\nX-Access-Token: " + token("ann", user_type="staff").encode() + b"\r\n"
        target = b"/0/odata/$batch"
    content = b'{"requests":[]}'
    body = b"%x\r\n%s\r\n0\r\nX-Debug: 1\r\nX-Tenant: evil\r\nX_Tenant: evil\r\nX-Sum: 1\r\n\r\n" % (len(content), content)
    finals, _ = replies(*talk(gate.port, [post(fields, body, target)], half_close=True))
    assert [final.start[0] for final in finals] == [200], finals[0].body
    request = origin.requests()[0]
    assert request.body == content and request.trailers == [("X-Sum", "1")]
    assert [field for field in request.fields if field[1] == "evil" or "debug" in field[0].lower()] == []
    assert request.get("X-Tenant") == "acme"


@pytest.mark.parametrize("name,members", [("", ["1.0 front"]), ("gate", ["1.0 front", "1.1 gate"])])
def test_via_is_added_when_it_is_configured(proxy, origin, name, members):
    """RFC 9110 section 7.6.3."""
    gate = proxy(name="via", upstream=origin.url, **{**settings(origin), "proxy": {"via": name}})
    finals, _ = replies(*talk(gate.port, [get(b"Via: 1.0 front\r\n")], half_close=True))
    assert finals[0].start[0] == 200
    assert [value for field, value in origin.requests()[0].fields if field.lower() == "via"] == members


def test_options_without_hops_is_answered_here(gate, origin):
    finals, _ = replies(*talk(gate.port, [b"OPTIONS /x HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n"], half_close=True))
    assert finals[0].start[0] == 200 and finals[0].get("Allow") and origin.seen() == []


def test_every_request_of_a_pipeline_is_answered_once_and_in_order(gate, origin):
    sent = b"".join(post(b"Content-Length: 5\r\n", b"hello", f"/p{n}".encode()) if n % 2 else get(target=f"/p{n}".encode()) for n in range(40))
    received, closed = talk(gate.port, [sent + NEXT])
    finals, rest = replies(received, closed)
    assert len(finals) == 41 and rest == b"" and closed
    assert [request.start[1] for request in origin.requests()] == [f"/p{n}" for n in range(40)] + ["/next"]


@pytest.mark.parametrize("fields,kept", [(b"", False), (b"Connection: keep-alive\r\n", True), (b"Connection: close\r\n", False),
                                         (b"Connection: keep-alive, close\r\n", False)])
def test_http_1_0_stays_only_when_it_asks(gate, origin, fields, kept):
    received, closed = talk(gate.port, [b"GET /x HTTP/1.0\r\n" + H + fields + b"\r\n", NEXT])
    finals, _ = replies(received, closed)
    assert len(finals) == (2 if kept else 1) and closed
    assert finals[0].get("Connection") == ("keep-alive" if kept else "close")


def test_an_upgrade_that_the_upstream_declines_leaves_http_in_place(gate, origin):
    """What follows the request is the next request, not the other protocol."""
    message = get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"/switch")
    received, closed = talk(gate.port, [message + NEXT], half_close=True)
    finals, rest = replies(received, closed)
    assert [final.start[0] for final in finals] == [200, 200] and rest == b""
    assert origin.requests()[0].get("Upgrade") == "websocket"
    assert [request.start[1] for request in origin.requests()] == ["/switch", "/next"]


@pytest.mark.parametrize("message,words", [(REFUSED["9112-2.3 version"]["HTTP/2 preface"][0], b"HTTP/2 is not spoken here"),
                                           (REFUSED["9112-2.3 version"]["HTTP/0.9"][0], b"no protocol version")])
def test_other_versions_are_told_so(gate, message, words):
    finals, _ = replies(*talk(gate.port, [message], half_close=True))
    assert words in finals[0].body


REFUSED_HEADS = {
    "field": (b"HEAD /x HTTP/1.1\r\n" + H + b"A : b\r\n\r\n", 400),
    "no Host": (b"HEAD /x HTTP/1.1\r\n\r\n", 400),
    "CL and TE": (b"HEAD /x HTTP/1.1\r\n" + H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "version": (b"HEAD /x HTTP/1.2\r\n" + H + b"\r\n", 400),
    "large field": (b"HEAD /x HTTP/1.1\r\n" + H + b"A: " + b"x" * 20000 + b"\r\n\r\n", 431),
    "endless request line": (b"HEAD /" + b"x" * 20000, 414),
}


@pytest.mark.parametrize("name", REFUSED_HEADS)
def test_a_refused_head_is_answered_without_content(gate, origin, name):
    """RFC 9110 section 9.3.2: the server MUST NOT send content in the response."""
    message, status = REFUSED_HEADS[name]
    for port in (gate.port, gate.admin_port):
        received, closed = talk(port, [message], half_close=True)
        head, _, content = received.partition(b"\r\n\r\n")
        assert closed and head.split(b" ")[1] == b"%d" % status and content == b"", received
        assert b"\r\nContent-Length: " in head
    assert origin.seen() == []


def test_a_head_that_does_not_come_is_408(gate, origin, proxy):
    slow = proxy(name="slow", upstream=origin.url, timeouts={"request_head": "200ms"})
    received, closed = talk(slow.port, [b"GET /echo HTTP/1.1\r\n"])
    finals, _ = replies(received, closed)
    assert [final.start[0] for final in finals] == [408] and closed and origin.seen() == []
    received, closed = talk(slow.port, [b"HEAD /echo HTTP/1.1\r\n"])
    assert b" 408 " in received and received.endswith(b"\r\n\r\n") and closed


def test_a_connection_that_answered_early_carries_no_other_request(proxy, origin):
    """CL.0: the origin begins to answer a POST before it has its body, so it may take the body for a request of its own."""
    gate = proxy(name="single", workers=1, **settings(origin))  # one worker: one pool of connections
    whole = OK % 0
    origin.script["/early"] = Exchange([whole[:-1]], when="head", late=[whole[-1:]])
    talk(gate.port, [post(b"Content-Length: %d\r\n" % len(SMUGGLED), b"", b"/early"), SMUGGLED], pause=0.1)
    eventually(lambda: [request.body for request in origin.requests()] == [SMUGGLED], 5, "the origin has the whole request")
    origin.script.clear()
    for _ in range(4):
        finals, _ = replies(*talk(gate.port, [NEXT]))
        assert finals[0].start[0] == 200
    for connection in origin.seen():
        assert b"/early" not in connection.raw or b"/next" not in connection.raw


UPLOADS = {
    "too large": (post(b"Content-Length: %d\r\n" % 24_000_000), 413),
    "too large, chunked": (chunked(b"%x\r\n" % 24_000_000), 413),
    "malformed": (post(b"Content-Length: +1\r\n"), 400),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_client_that_writes_everything_before_it_reads_hears_the_refusal(gate, origin, name):
    """RFC 9112 section 9.6. What is left of the connection is read and dropped; without that a reset destroys the reply."""
    head, status = UPLOADS[name]
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", gate.port), 20 * PATIENCE) as sock:
            sock.sendall(head)
            for _ in range(24):
                sock.sendall(bytes(1_000_000))
            received = b""
            while piece := sock.recv(65536):
                received += piece
        assert replies(received, True)[0][0].start[0] == status, received
    assert origin.requests() == []


def test_who_falls_silent_after_a_refusal_is_let_go(proxy, origin):
    gate = proxy(name="silent", upstream=origin.url)

    def held():
        return gate.metric("tollgate_connections", side="client")

    with socket.create_connection(("127.0.0.1", gate.port), 10) as sock:
        sock.sendall(get(b"A : b\r\n"))
        while sock.recv(65536):
            pass
        assert held() == 1
        eventually(lambda: held() == 0, 20 * PATIENCE, "closed without a word of the client")


# ---------------------------------------------------------------- property

PIECES = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b"\x0b", b":", b": ", b",", b";", b"0\r\n\r\n", b"5\r\n", b"Transfer-Encoding: chunked\r\n",
          b"Transfer-Encoding:chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content_length: 3\r\n", b"Host: other.test\r\n",
          b"Connection: close\r\n", b"Connection: X-A\r\n", b"X-A: 1\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", SMUGGLED, b"\xff", b"%00",
          b"http://crm.test", b"HTTP/1.0", b"chunked, ", b";a=b", b"\x7f", b"#", b"\\", b"*"]
BASES = [
    get(), get(b"X-A: 1\r\nCookie: a=b\r\n", b"/x?y=1"), post(b"Content-Length: 5\r\n", b"hello"),
    chunked(b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), get() + post(b"Content-Length: 3\r\n", b"abc") + get(target=b"/z"),
    get(target=b"http://crm.test/x"), get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), chunked(b"1\r\nx\r\n0\r\n\r\n", b"Expect: 100-continue\r\n"),
    b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]


def mutate(message, chance):
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(message) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(message):
            message = message[:at] + bytes([chance.randrange(256)]) + message[at + 1:]
        elif kind == 1:
            message = message[:at] + message[at + chance.randint(1, 6):]
        elif kind in (2, 3):
            message = message[:at] + chance.choice(PIECES) + message[at:]
        elif kind == 4:
            lines = message.split(b"\r\n")
            chosen = chance.randrange(len(lines))
            lines.insert(chance.randrange(len(lines)), lines[chosen])
            message = b"\r\n".join(lines)
        else:
            lines = message.split(b"\r\n")
            chance.shuffle(lines)
            message = b"\r\n".join(lines)
    return message


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_in_what_goes_on_is_canonical_or_nothing(gate, origin, seed):
    chance = random.Random(seed)
    for number in range(250):
        origin.reset()
        message = mutate(chance.choice(BASES), chance)
        context = f"seed {seed}, message {number}: {message!r}"
        cut = chance.randrange(len(message) + 1) if chance.random() < 0.3 else 0
        received, closed = talk(gate.port, [message[:cut], message[cut:]] if cut else [message], half_close=True, timeout=15 * PATIENCE)
        assert closed, context
        try:
            finals, rest = replies(received, closed)
        except grammar.Invalid as error:
            pytest.fail(f"{error}; {context}; {received!r}")
        assert rest == b"", f"{context}; {received!r}"
        assert origin.invalid() == [], context
        forwarded = origin.requests()
        answered = [final for final in finals if final.get("X-Origin")]
        assert len(answered) == len(forwarded), f"{context}; {received!r}; {[c.raw for c in origin.seen()]}"
        for request in forwarded:
            assert "smuggled" not in request.start[1] or SMUGGLED[:14] in message
