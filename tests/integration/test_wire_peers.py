"""What reaches an upstream is read in the same way by the servers that stand there: nginx and HAProxy answer exactly as many
requests as the proxy forwarded, and then the one that is sent after them."""
import os
import random

import pytest

import grammar
from harness import Process, eventually, free_port
from http1 import Client
from test_wire_requests import BASES, PASSED, mutate
from wire import gate_before_origin, origin, replies, talk  # noqa: F401: a fixture among them

LAST = b"GET /last HTTP/1.1\r\nHost: crm.test\r\nConnection: close\r\n\r\n"
NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
 uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
 server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }} }}
"""
HAPROXY = """defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
  timeout http-request 5s
frontend f
  bind 127.0.0.1:{port}
  http-request wait-for-body time 2s
  http-request return status 200 content-type text/plain string ok
"""


class Peer(Process):
    def __init__(self, folder, name, config, command):
        self.port = free_port()
        path = os.path.join(folder, f"{name}.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config.format(folder=folder, port=self.port))
        super().__init__([word.format(path=path, folder=folder) for word in command], os.path.join(folder, f"{name}.log"))

    def start(self):
        self.launch()
        eventually(lambda: Client(self.port).request("GET", "/").status == 200, 10, "the peer answers")
        return self


gate = gate_before_origin("wire-peers")


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("peers"))
    started = [Peer(folder, "nginx", NGINX, ["/usr/sbin/nginx", "-c", "{path}", "-p", "{folder}", "-e", "{folder}/nginx.err"]),
               Peer(folder, "haproxy", HAPROXY, ["/usr/sbin/haproxy", "-db", "-f", "{path}"])]
    for peer in started:
        peer.start()
    yield started
    for peer in started:
        peer.stop()


def is_ordinary(request):
    """nginx knows neither the target * nor methods with other letters; nobody answers an upgrade with 200 and goes on."""
    method, target = request.start
    return method.isalpha() and method.isupper() and method != "HEAD" and target != "*" and request.get("Upgrade") is None


def check(peers, origin, context):
    """All connections that the origin saw, as they were."""
    checked = 0
    for connection in origin.seen():
        if connection.rest or not connection.requests or not all(is_ordinary(request) for request in connection.requests):
            continue
        raw = connection.raw.replace(b"Expect: 100-continue\r\n", b"")  # the bodies are there already
        for peer in peers:
            received, closed = talk(peer.port, [raw + LAST])
            try:
                finals, rest = replies(received, closed)
            except grammar.Invalid as error:
                pytest.fail(f"{error}: {received!r}")
            statuses = [final.start[0] for final in finals]
            assert statuses == [200] * (len(connection.requests) + 1) and rest == b"", f"{peer.command[0]}: {statuses}; {raw!r}; {context}"
            checked += 1
    return checked


@pytest.mark.parametrize("name", PASSED)
def test_peers_read_what_is_forwarded(gate, origin, peers, name):
    origin.reset()
    talk(gate.port, [PASSED[name][0]], half_close=True)
    check(peers, origin, name)


@pytest.mark.parametrize("seed", range(2))
def test_peers_read_mutations_as_the_proxy_does(gate, origin, peers, seed):
    chance = random.Random(500 + seed)
    checked = 0
    for _ in range(400):
        origin.reset()
        message = mutate(chance.choice(BASES), chance)
        talk(gate.port, [message], half_close=True)
        checked += check(peers, origin, f"{message!r}")
    assert checked > 40, "most of them were refused: the test has lost its subject"
