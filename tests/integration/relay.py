"""A TCP relay between the proxy and its store that misbehaves on demand.

    relay = Relay(redis.port).start()       # the proxy's store.url names relay.port
    relay.delay = 0.1                       # every piece is held back that long, each way
    relay.stall()                           # connections stay open, nothing passes any more
    relay.halve()                           # requests pass, replies do not
    relay.cut()                             # connections are reset, new ones refused
    relay.heal()                            # all is well again (what was held back in a stall passes)
    relay.target = other.port               # for connections from now on
"""
import select
import socket
import struct
import threading
import time


class Relay:
    def __init__(self, target):
        self.target = target
        self.delay = 0.0
        self._blocked = {"up": False, "down": False}
        self._refuse = False
        self._changed = threading.Condition()
        self._pairs = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._running = True
        self.bytes = {"up": 0, "down": 0}

    def start(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self):
        self._running = False
        self.heal()
        self.drop()
        self._listener.close()

    kill = stop

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def _set(self, up, down, refuse=False):
        with self._changed:
            self._blocked = {"up": up, "down": down}
            self._refuse = refuse
            self._changed.notify_all()

    def stall(self):
        self._set(True, True)

    def halve(self):
        self._set(False, True)

    def cut(self):
        self._set(False, False, refuse=True)
        self.drop()

    def heal(self):
        self.delay = 0.0
        self._set(False, False)

    def drop(self):
        """Resets the connections that are open now; new ones are welcome."""
        with self._changed:
            pairs, self._pairs = self._pairs, set()
            self._changed.notify_all()
        for pair in pairs:
            for sock in pair:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                sock.close()

    def connections(self):
        with self._changed:
            return len(self._pairs)

    def _accept(self):
        while self._running:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuse:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=2)
            except OSError:
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self._changed:
                self._pairs.add(pair)
            threading.Thread(target=self._pump, args=(pair, client, server, "up"), daemon=True).start()
            threading.Thread(target=self._pump, args=(pair, server, client, "down"), daemon=True).start()

    def _pump(self, pair, source, sink, way):
        try:
            while self._running:
                if not select.select([source], [], [], 0.5)[0]:
                    if pair not in self._pairs:
                        return
                    continue
                data = source.recv(65536)
                if not data:
                    break
                if self.delay:
                    time.sleep(self.delay)
                with self._changed:
                    while self._blocked[way] and self._running and pair in self._pairs:
                        self._changed.wait(0.5)
                if pair not in self._pairs:
                    return
                sink.sendall(data)
                self.bytes[way] += len(data)
        except (OSError, ValueError):
            pass
        finally:
            with self._changed:
                self._pairs.discard(pair)
            for sock in pair:
                try:
                    sock.close()
                except OSError:
                    pass
