"""The scripts of tests/varnishtest: an exact client and an exact origin around the real proxy, one file a behaviour."""
import glob
import os
import subprocess

import pytest

from harness import PATIENCE, ROOT, Proxy, free_port
from wire import settings

SCRIPTS = sorted(glob.glob(os.path.join(ROOT, "tests/varnishtest/*.vtc")))


class Address:
    """Where the scripts' origin will listen."""

    def __init__(self):
        self.url = f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def origin():
    return Address()


@pytest.fixture(scope="module")
def gate(shared, session_folder, origin, redis):
    # One worker: one pool of connections, so that a script knows on which connection its next request comes.
    return shared(Proxy(session_folder, origin.url, redis.url, name="varnishtest", changes={**settings(origin), "workers": 1}))


def test_there_are_scripts():
    assert len(SCRIPTS) > 40


@pytest.mark.parametrize("script", SCRIPTS, ids=[os.path.basename(script)[:-4] for script in SCRIPTS])
def test_script(gate, origin, script, tmp_path):
    done = subprocess.run(["varnishtest", "-t", str(20 * PATIENCE), "-D", f"proxy_port={gate.port}",
                           "-D", f"origin_port={origin.url.rsplit(':', 1)[1]}", script],
                          capture_output=True, text=True, timeout=40 * PATIENCE, check=False, cwd=tmp_path,
                          env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
