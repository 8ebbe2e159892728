"""HTTP/1.1 messages read by the grammar of RFC 9112 and nothing else: a second opinion that shares no line with the proxy.

Strict on purpose: what an upstream receives from the proxy, and a client, must be in the one form that everybody reads alike.
"""
import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") (/[!-~]*|\*) HTTP/1\.1")
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
FIELD = re.compile(rb"(" + TOKEN + rb"): ((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)")
SIZE = re.compile(rb"[0-9a-f]{1,16}")


class Invalid(Exception):
    """Not a message of the grammar."""


class Incomplete(Exception):
    """So far so good, but it does not end here."""


class Message:
    def __init__(self, start, fields):
        self.start, self.fields, self.body, self.trailers = start, fields, b"", []
        self.framing = "none"

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name, default=None):
        return next(iter(self.all(name)), default)

    def names(self):
        return [name.lower() for name, _ in self.fields]


def _line(data, at):
    end = data.find(b"\r\n", at)
    if end < 0:
        bad = re.search(rb"[\x00-\x08\x0a-\x0c\x0e-\x1f\x7f]|\r(?=[^\n])", data[at:])
        if bad:
            raise Invalid(f"a control byte in a line: {data[at:at + 200]!r}")
        raise Incomplete
    return data[at:end], end + 2


def _fields(data, at):
    fields = []
    while True:
        line, at = _line(data, at)
        if not line:
            return fields, at
        match = FIELD.fullmatch(line)
        if not match:
            raise Invalid(f"not a field line: {line!r}")
        fields.append((match[1].decode("ascii"), match[2].decode("latin-1")))


def _body(message, data, at, until_close):
    codings, lengths = message.all("Transfer-Encoding"), message.all("Content-Length")
    if len(codings) + len(lengths) > 1:
        raise Invalid(f"more than one framing: {message.fields}")
    if codings:
        if codings != ["chunked"]:
            raise Invalid(f"Transfer-Encoding: {codings}")
        message.framing = "chunked"
        while True:
            line, at = _line(data, at)
            if not SIZE.fullmatch(line):
                raise Invalid(f"not a chunk size: {line!r}")
            size = int(line, 16)
            if size == 0:
                break
            if len(data) < at + size + 2:
                raise Incomplete
            message.body += data[at:at + size]
            at += size
            if data[at:at + 2] != b"\r\n":
                raise Invalid("a chunk without its CRLF")
            at += 2
        message.trailers, at = _fields(data, at)
    elif lengths:
        if not re.fullmatch("[0-9]+", lengths[0]):
            raise Invalid(f"Content-Length: {lengths}")
        message.framing = "length"
        end = at + int(lengths[0])
        if len(data) < end:
            raise Incomplete
        message.body, at = data[at:end], end
    elif until_close:
        message.framing = "close"
        message.body, at = data[at:], len(data)
    return at


def read_request(data):
    """(message, bytes used). message.start is (method, target)."""
    line, at = _line(data, 0)
    match = REQUEST_LINE.fullmatch(line)
    if not match:
        raise Invalid(f"not a request line: {line!r}")
    fields, at = _fields(data, at)
    message = Message((match[1].decode(), match[2].decode()), fields)
    if len(message.all("Host")) != 1:
        raise Invalid(f"not exactly one Host: {fields}")
    return message, _body(message, data, at, False)


def read_response(data, method="GET", closed=False):
    """(message, bytes used), interim replies one at a time. message.start is (status, phrase)."""
    line, at = _line(data, 0)
    match = STATUS_LINE.fullmatch(line)
    if not match:
        raise Invalid(f"not a status line: {line!r}")
    fields, at = _fields(data, at)
    status = int(match[1])
    message = Message((status, match[2].decode("latin-1")), fields)
    if status < 200 or status == 204:
        if message.all("Transfer-Encoding") or message.all("Content-Length"):
            raise Invalid(f"a {status} with framing: {fields}")
        return message, at
    if method == "HEAD" or status == 304:
        return message, at
    without = not message.all("Transfer-Encoding") and not message.all("Content-Length")
    if without and not closed:
        raise Incomplete
    return message, _body(message, data, at, True)


def read_all(data, reader, **options):
    """(messages, what is left of the data): everything that is complete."""
    messages = []
    while data:
        try:
            message, used = reader(data, **options)
        except Incomplete:
            break
        messages.append(message)
        data = data[used:]
    return messages, data
