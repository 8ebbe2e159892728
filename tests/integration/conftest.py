"""Fixtures: one stand-in CRM and one Redis for the whole run, proxies as tests ask for them. Logs of everything that
was started are shown when a test fails."""
import itertools
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import Authority, Proxy, Redis, Standin, TOLLGATE, STANDIN, bearer  # noqa: E402

_numbers = itertools.count(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: moves gigabytes or waits for long; left out of sanitizer runs")


def pytest_sessionstart(session):
    for program in (TOLLGATE, STANDIN):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is missing; ./dev test builds it", returncode=3)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for process in getattr(item, "started", []) + list(item.session.__dict__.get("shared_processes", [])):
            if os.path.exists(process.log_path):
                report.sections.append((f"log of {os.path.basename(process.log_path)}", process.log()[-6000:]))


@pytest.fixture(scope="session")
def shared(request, tmp_path_factory):
    """Starts processes that live for the whole session."""
    processes = request.session.__dict__.setdefault("shared_processes", [])

    def start(process):
        processes.append(process)
        return process.start()

    yield start
    codes = {process.command[0]: process.stop() for process in reversed(processes) if isinstance(process, Proxy)}
    for process in reversed(processes):
        process.stop()
    assert set(codes.values()) <= {0}, f"{codes}: see the log of the shared proxy"


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def crm_process(shared, session_folder):
    return shared(Standin(session_folder))


@pytest.fixture
def crm(crm_process):
    """The stand-in CRM, well behaved and with its counts at zero."""
    crm_process.settings(latency_ms=0, capacity=0, fault="", fault_every=1)
    crm_process.reset()
    return crm_process


@pytest.fixture(scope="session")
def redis(shared, session_folder):
    return shared(Redis(session_folder))


@pytest.fixture(scope="session")
def gate(shared, session_folder, crm_process, redis):
    """A proxy with the usual configuration, shared by tests that do not change it: each uses a user of its own."""
    return shared(Proxy(session_folder, crm_process.url, redis.url))


@pytest.fixture
def start(request, tmp_path):
    """start(Proxy(...)): for this test alone."""
    started = request.node.started = []

    def launch(process):
        started.append(process)
        return process.start()

    yield launch
    failures = []
    for process in reversed(started):
        try:
            code = process.stop()
            if isinstance(process, Proxy) and code not in (0, -9, None):
                failures.append(f"the proxy ended with code {code}\n{process.log()[-6000:]}")
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def proxy(start, tmp_path, crm, redis):
    """proxy(key=value, ...): a proxy of this test's own, in front of the shared CRM and Redis."""

    def make(upstream=None, store=None, name="tollgate", store_settings=None, **changes):
        if store_settings:
            changes["store"] = store_settings
        return start(Proxy(str(tmp_path), upstream or crm.url, store or redis.url, name, changes))

    return make


@pytest.fixture
def user(request):
    """A user name that no other test uses, so that quotas do not meet."""
    return f"{request.node.name[:40]}-{os.getpid()}-{next(_numbers)}".replace("[", "-").replace("]", "")


@pytest.fixture
def auth(user):
    return bearer(user)


@pytest.fixture(scope="session")
def authority(session_folder):
    return Authority(os.path.join(session_folder, "certificates"))
