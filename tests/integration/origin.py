"""An upstream over bare sockets: writes down every byte that reaches it, reads it by the grammar, answers what it is told to."""
import socket
import threading

import grammar

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Origin: %d\r\n\r\nok"


class Exchange:
    """What the origin does with one request. `answer` may hold None: close the connection then and there."""

    def __init__(self, answer, when="complete", late=()):
        self.answer, self.when = answer, when  # when: complete | head (answers before the body has come)
        self.late = late  # with when="head": sent once the body has come


class Connection:
    def __init__(self):
        self.raw = b""
        self.requests = []
        self.invalid = None
        self.rest = b""
        self.closed = False


class Origin:
    def __init__(self, address="127.0.0.1", port=0):
        self.listener = socket.create_server((address, port), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.connections = []
        self.script = {}  # target -> Exchange
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        self.listener.close()

    def reset(self):
        with self.lock:
            self.connections = []
            self.script = {}

    def seen(self):
        """All connections on which something arrived since the last reset."""
        with self.lock:
            return [connection for connection in self.connections if connection.raw]

    def requests(self):
        return [request for connection in self.seen() for request in connection.requests]

    def invalid(self):
        return [connection.invalid for connection in self.seen() if connection.invalid]

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        connection = None
        data = b""
        answered_early = False
        with sock:
            while True:
                try:
                    piece = sock.recv(65536)
                except OSError:
                    piece = b""
                with self.lock:
                    if not piece:
                        if connection:
                            connection.closed = True
                        return
                    if connection not in self.connections:  # the first bytes, or the first since a reset
                        connection = Connection()
                        self.connections.append(connection)
                    connection.raw += piece
                data += piece
                while data:
                    try:
                        target = self._target(data)
                        exchange = self.script.get(target)
                        if exchange and exchange.when == "head" and not answered_early and b"\r\n\r\n" in data:
                            answered_early = True
                            if not self._answer(sock, exchange.answer):
                                return
                        request, used = grammar.read_request(data)
                    except grammar.Incomplete:
                        break
                    except grammar.Invalid as error:
                        connection.invalid = str(error)
                        return
                    data = data[used:]
                    with self.lock:
                        connection.requests.append(request)
                        self.count += 1
                        number = self.count
                    if answered_early:
                        answered_early = False
                        if not self._answer(sock, exchange.late):
                            return
                    elif not self._answer(sock, exchange.answer if exchange else [OK % number]):
                        return
                connection.rest = data

    @staticmethod
    def _target(data):
        words = data.split(b"\r\n", 1)[0].split(b" ")
        return words[1].decode("latin-1") if len(words) > 1 else ""

    @staticmethod
    def _answer(sock, answer):
        for piece in answer:
            if piece is None:
                return False
            try:
                sock.sendall(piece)
            except OSError:
                return False
        return True
