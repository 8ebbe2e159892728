"""A proxy between bare sockets: what the tests of the wire share."""
import re
import socket
import time

import pytest

import grammar
from harness import PATIENCE, Proxy
from origin import Origin

LIMITS = {"max_header_bytes": "8KiB", "max_request_line": "2KiB", "max_header_count": 32, "max_body": "1KiB"}


def settings(origin):
    return {
        "upstreams": {"crm": {"servers": [origin.url], "response_timeout": f"{700 * PATIENCE}ms", "idle_timeout": f"{700 * PATIENCE}ms"}},
        "routes": [{"path_prefix": "/switch", "upstream": "crm", "metered": False},
                   {"path_prefix": "/metered", "upstream": "crm"},
                   {"path_prefix": "/", "upstream": "crm", "metered": False, "allow_upgrade": False}],
        "identity": {"sources": [{"header": "X-Access-Token"}, {"cookie": "session"}]},
        "limits": LIMITS,
    }


@pytest.fixture(scope="module")
def origin():
    made = Origin()
    yield made
    made.close()


def gate_before_origin(name):
    """The fixture `gate` of a module: a proxy with a name of its own before the module's origin."""
    @pytest.fixture(scope="module")
    def gate(shared, session_folder, origin, redis):
        return shared(Proxy(session_folder, origin.url, redis.url, name=name, changes=settings(origin)))

    return gate


@pytest.fixture(autouse=True)
def clean(origin):
    origin.reset()


def talk(port, pieces, half_close=False, timeout=10, pause=0.002):
    """Sends the pieces and reads until the proxy closes, or has said nothing more for a while. (bytes, closed)"""
    received, closed = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                sock.sendall(piece)
                if len(pieces) > 1:
                    time.sleep(pause)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                closed = True
                break
            if not data:
                closed = True
                break
            received += data
    return received, closed


def replies(received, closed, method="GET"):
    """The final replies among the bytes, strictly read; what is left over must be nothing."""
    messages, rest = grammar.read_all(received, grammar.read_response, method=method, closed=closed)
    return [message for message in messages if message.start[0] >= 200], rest


def split(message, at):
    return [message[:at], message[at:]] if 0 < at < len(message) else [message]


def reason(reply):
    match = re.search(rb'"reason":"([a-z_]+)"', reply.body)
    return match[1].decode() if match else None
