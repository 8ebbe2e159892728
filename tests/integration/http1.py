"""A small HTTP/1.1 client over a bare socket: sends exactly the bytes it is told to and shows exactly what came back.

Deliberately not a library: libraries tidy up what a proxy must be seen to refuse or to keep.
"""
import socket
import ssl


class Closed(Exception):
    """The other side closed before a complete reply was there. `partial` holds what had come."""

    def __init__(self, partial=b""):
        super().__init__(f"connection closed after {len(partial)} bytes: {partial[:200]!r}")
        self.partial = partial


class Response:
    def __init__(self, status, reason, headers, version):
        self.status = status
        self.reason = reason
        self.headers = headers  # [(name, value)], as sent
        self.version = version
        self.body = b""
        self.trailers = []
        self.interim = []  # earlier 1xx replies

    def get(self, name, default=None):
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return default

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self):
        import json
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class Client:
    """One connection."""

    def __init__(self, port, host="127.0.0.1", timeout=30, tls=None, server_name="localhost"):
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass

    def send(self, data):
        self.sock.sendall(data)

    def _more(self):
        try:
            data = self.sock.recv(262144)
        except (ConnectionResetError, ssl.SSLError):
            data = b""
        if not data:
            raise Closed(self.buffer)
        self.buffer += data

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _fields(self):
        fields = []
        while True:
            line = self._line()
            if not line:
                return fields
            name, value = line.split(b":", 1)
            fields.append((name.decode("latin-1"), value.strip().decode("latin-1")))

    def take(self, count):
        while len(self.buffer) < count:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_head(self):
        line = self._line().decode("latin-1")
        version, status, *rest = line.split(" ", 2)
        return Response(int(status), rest[0] if rest else "", self._fields(), version)

    def read(self, method="GET", sink=None):
        """The next final reply. sink(bytes): receives the body in place of Response.body."""
        interim = []
        while True:
            reply = self.read_head()
            if 100 <= reply.status < 200 and reply.status != 101:
                interim.append(reply)
                continue
            break
        reply.interim = interim
        pieces = []
        keep = sink or pieces.append
        if method == "HEAD" or reply.status in (101, 204, 304):
            return reply
        if (reply.get("Transfer-Encoding") or "").lower() == "chunked":
            while True:
                size = int(self._line().split(b";")[0], 16)
                if size == 0:
                    break
                self._copy(size, keep)
                assert self.take(2) == b"\r\n"
            reply.trailers = self._fields()
        elif reply.get("Content-Length") is not None:
            self._copy(int(reply.get("Content-Length")), keep)
        else:
            try:
                while True:
                    if self.buffer:
                        keep(self.buffer)
                        self.buffer = b""
                    self._more()
            except Closed:
                pass
        reply.body = b"".join(pieces)
        return reply

    def _copy(self, size, keep):
        while size > 0:
            if not self.buffer:
                self._more()
            piece = self.buffer[:size]
            self.buffer = self.buffer[len(piece):]
            size -= len(piece)
            keep(piece)

    def request(self, method, target, headers=(), body=None, chunked=None, trailers=(), version="1.1"):
        self.send(render(method, target, headers, body, chunked, trailers, version))
        return self.read(method)

    def closed_by_peer(self, timeout=5):
        """True when the other side ends the connection without sending anything more."""
        self.sock.settimeout(timeout)
        try:
            return self.buffer == b"" and self.sock.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True
        except socket.timeout:
            return False


def render(method, target, headers=(), body=None, chunked=None, trailers=(), version="1.1"):
    """A request as bytes. chunked: the body as a list of chunks."""
    headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        headers.insert(0, ("Host", "crm.test"))
    if body is not None and "content-length" not in names:
        headers.append(("Content-Length", str(len(body))))
    if chunked is not None:
        headers.append(("Transfer-Encoding", "chunked"))
    out = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    out = out.encode("latin-1") + (body or b"")
    if chunked is not None:
        for piece in chunked:
            out += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        out += b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1") + b"\r\n"
    return out
