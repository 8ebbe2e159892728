"""Sentinel and Cluster, end to end: servers die, slots move, and every count stays exact."""
import os
import threading

import pytest

from harness import Redis, bearer, eventually, free_port
from test_failure_ladder import COUNT, SHORT, admitted, quota, statuses

QUICK = {**SHORT, "session": "30s"}


class Sentinel(Redis):
    """A redis-server that watches another one."""

    def __init__(self, folder, name, primary):
        super().__init__(folder, name)
        path = os.path.join(self.folder, "sentinel.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
                       f"sentinel monitor mymaster 127.0.0.1 {primary.port} 2\n"
                       "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n")
        self.command = ["redis-server", path, "--sentinel"]

    def start(self):
        super().start()
        # As fast as it can be made. Not ping-period: five of it is how old the news of a replica may be that is promoted.
        assert self.command_line("SENTINEL", "DEBUG", "info-period", "100", "ask-period", "50", "publish-period", "50",
                                 "tilt-period", "500", "election-timeout", "500") == "OK"
        return self

    def lines(self, *words):
        return self.command_line("SENTINEL", *words).splitlines()


class Load:
    """Light load in the background: each user calls again and again; what was answered is kept."""

    def __init__(self, gate, users, pause=0.01):
        self.gate, self.users, self.pause = gate, users, pause
        self.passed = {user: 0 for user in users}
        self.other = {user: [] for user in users}
        self.broken = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        try:
            headers = {user: bearer(user) for user in self.users}
            with self.gate.client() as client:
                while not self._stop.wait(self.pause):
                    for user in self.users:
                        status = client.request("GET", COUNT, headers[user]).status
                        if status == 200:
                            self.passed[user] += 1
                        else:
                            self.other[user].append(status)
        except Exception as error:  # told by the test, which waits for the thread
            self.broken.append(error)

    def total(self):
        return sum(self.passed.values())


def counted(gate, passed, what):
    for user, calls in passed.items():
        eventually(lambda: gate.used(bearer(user)) == calls, 20, f"{what}: {user} is counted to the call")


def test_sentinels_promote_a_replica_and_no_count_is_lost(proxy, start, tmp_path, crm, user):
    primary = start(Redis(str(tmp_path), name="primary", extra=["--repl-diskless-sync-delay", "0"]))
    replica = start(Redis(str(tmp_path), name="replica", extra=["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", str(primary.port)]))
    eventually(lambda: "master_link_status:up" in replica.command_line("INFO", "replication"), 20, "the replica follows")
    sentinels = [start(Sentinel(str(tmp_path), f"sentinel-{i}", primary)) for i in range(3)]
    for sentinel in sentinels:
        eventually(lambda: sentinel.lines("sentinels", "mymaster").count("name") == 2 and sentinel.lines("replicas", "mymaster").count("name") == 1,
                   20, "the sentinels know each other and the replica")
    url = "redis+sentinel://" + ",".join(f"127.0.0.1:{each.port}" for each in sentinels) + "/mymaster"
    gate = proxy(store=url, quotas=quota(5_000), store_settings=QUICK)
    users = [f"{user}-{i}" for i in range(4)]
    for each in users:
        assert statuses(gate, bearer(each), 1) == [200]
    with Load(gate, users) as load:
        eventually(lambda: load.total() > 40, 10, "the load runs")
        primary.kill()
        before = load.total()
        eventually(lambda: "role:master" in replica.command_line("INFO", "replication"), 20, "the replica is promoted")
        eventually(lambda: gate.call("GET", COUNT, bearer(user + "-new")).status == 200, 20, "new users are admitted again")
        assert load.total() > before  # leases went on
    assert not load.broken, load.broken
    assert all(not other for other in load.other.values()), load.other
    counted(gate, {each: load.passed[each] + 1 for each in users}, "after the failover")
    assert gate.used(bearer(user + "-new")) == 1
    assert admitted(crm) == load.total() + 4 + 1


SLOTS = 16384


class Cluster:
    """Three primaries, a third of the slots each."""

    def __init__(self, start, folder):
        self.nodes, self.ids = [], []
        for i in range(3):
            bus = free_port()
            node = Redis(folder, f"node-{i}", ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1000",
                                               "--cluster-require-full-coverage", "no", "--appendonly", "yes", "--appendfsync", "always"])
            node.bus = bus
            self.nodes.append(start(node))
            self.ids.append(node.command_line("CLUSTER", "MYID"))
        third = SLOTS // 3
        for i, node in enumerate(self.nodes):
            last = SLOTS - 1 if i == 2 else (i + 1) * third - 1
            assert node.command_line("CLUSTER", "ADDSLOTSRANGE", str(i * third), str(last)) == "OK"
            assert node.command_line("CLUSTER", "SET-CONFIG-EPOCH", str(i + 1)) == "OK"
        for node in self.nodes[1:]:
            assert node.command_line("CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port), str(self.nodes[0].bus)) == "OK"
        eventually(self.whole, 20, "the cluster is formed")

    def whole(self):
        infos = [node.command_line("CLUSTER", "INFO") for node in self.nodes]
        return all("cluster_state:ok" in info and "cluster_known_nodes:3" in info and f"cluster_slots_ok:{SLOTS}" in info for info in infos)

    @property
    def url(self):
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def keys(self, index):
        return self.nodes[index].command_line("KEYS", "*").split()

    def slot_of(self, key):
        return self.nodes[0].command_line("CLUSTER", "KEYSLOT", key)

    def move(self, slot, source, target):
        """The steps in which redis-cli --cluster reshard moves a slot."""
        giver, taker = self.nodes[source], self.nodes[target]
        assert taker.command_line("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source]) == "OK"
        assert giver.command_line("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target]) == "OK"
        while keys := giver.command_line("CLUSTER", "GETKEYSINSLOT", slot, "1").split():
            assert giver.command_line("MIGRATE", "127.0.0.1", str(taker.port), "", "0", "5000", "KEYS", *keys) in ("OK", "NOKEY")
        for node in (taker, giver):
            assert node.command_line("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target]) == "OK"


@pytest.fixture
def cluster(start, tmp_path):
    return Cluster(start, str(tmp_path))


def homes(cluster, users):
    """{user: index of the node that keeps the count}"""
    found = {}
    for index in range(3):
        for key in cluster.keys(index):
            for user in users:
                if key.startswith("q:") and key.endswith(f":{user}"):
                    found[user] = index
    return found


def test_a_cluster_node_that_dies_and_returns_takes_no_count_along(proxy, crm, cluster):
    gate = proxy(store=cluster.url, quotas=quota(5_000), store_settings=QUICK)
    users = [f"member-{i}" for i in range(12)]  # the same in every run: of names by chance all may miss one of the nodes
    for each in users:
        eventually(lambda: gate.call("GET", COUNT, bearer(each)).status == 200, 20, "admitted")
    first = admitted(crm)
    home = eventually(lambda: len(found := homes(cluster, users)) == 12 and found, 10, "all are in the store")
    assert set(home.values()) == {0, 1, 2}
    with Load(gate, users) as load:
        eventually(lambda: load.total() > 60, 10, "the load runs")
        cluster.nodes[1].kill()
        before = dict(load.passed)
        eventually(lambda: all(load.passed[each] > before[each] + 5 for each in users), 15, "all go on, by their leases")
        cluster.nodes[1].start()
        eventually(cluster.whole, 20, "the cluster is whole")
    assert not load.broken, load.broken
    assert all(not other for other in load.other.values()), load.other
    assert first == 12
    counted(gate, {each: load.passed[each] + 1 for each in users}, "after the return")
    assert admitted(crm) == load.total() + 12


def test_slots_that_move_under_load_take_their_counts_along(proxy, crm, cluster, user):
    gate = proxy(store=cluster.url, quotas=quota(5_000), store_settings=QUICK)
    users = [f"{user}-{i}" for i in range(9)]
    for each in users:
        eventually(lambda: gate.call("GET", COUNT, bearer(each)).status == 200, 20, "admitted")
    home = eventually(lambda: len(found := homes(cluster, users)) == 9 and found, 10, "all are in the store")
    with Load(gate, users) as load:
        eventually(lambda: load.total() > 50, 10, "the load runs")
        for each in users[:6]:
            key = next(key for key in cluster.keys(home[each]) if key.startswith("q:") and key.endswith(f":{each}"))
            source, target = home[each], (home[each] + 1) % 3
            cluster.move(cluster.slot_of(key), source, target)
            home = homes(cluster, users)
            assert home[each] == target
        moved = load.total()
        eventually(lambda: load.total() > moved + 100, 10, "the load goes on")
    assert not load.broken, load.broken
    assert all(not other for other in load.other.values()), load.other
    counted(gate, {each: load.passed[each] + 1 for each in users}, "after the moves")
    eventually(lambda: gate.metric("tollgate_store_redirections_total") > 0, 10, "redirections were followed")
    assert admitted(crm) == load.total() + 9
    # The limit is one, wherever the count lives now.
    passed = load.passed[users[0]] + 1

    def exhausted():
        """503 where new tokens are needed and the slot's new server is not agreed on yet."""
        nonlocal passed
        with gate.client() as client:
            while (reply := client.request("GET", COUNT, bearer(users[0]))).status == 200:
                passed += 1
        assert passed <= 5_000 and (reply.status == 429 or reply.json()["reason"] == "store_unavailable"), (passed, reply)
        return reply.status == 429

    eventually(exhausted, 20, "the limit is reached")
    assert passed == 5_000
