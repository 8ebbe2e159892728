"""`./dev up` as somebody new would use it: what it prints can be pasted and does what it says."""
import os
import re
import subprocess

import pytest

from harness import ROOT, TOLLGATE, eventually

RELEASE = os.path.join(ROOT, "build/release/tollgate")


@pytest.mark.slow
@pytest.mark.skipif(os.path.realpath(TOLLGATE) != os.path.realpath(RELEASE), reason="runs with the release build alone")
def test_the_lines_that_dev_up_prints_can_be_pasted(tmp_path):
    env = {**os.environ, "TOLLGATE_RUN_DIR": str(tmp_path / "demo")}
    up = subprocess.run([os.path.join(ROOT, "dev"), "up", "--detach"], capture_output=True, text=True, timeout=600, env=env, check=False)
    try:
        assert up.returncode == 0, up.stderr[-4000:]
        tokens = dict(re.findall(r"^export (\w+)=(\S+)$", up.stdout, re.M))
        assert set(tokens) == {"ANN", "SAM", "OLD", "FEW"}
        answers = []
        for line in up.stdout.splitlines():
            if not line.startswith(("curl ", "for ")):
                continue
            shell = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env={**env, **tokens}, check=False)
            assert shell.returncode == 0, shell.stderr
            answers.append(shell.stdout)
        statuses = [re.match(r"HTTP/1.1 (\d+)", answer).group(1) if answer.startswith("HTTP/") else answer.split()[-1] for answer in answers[:-1]]
        assert statuses == ["200", "200", "401", "401", "403", "429", "429"], statuses
        assert "RateLimit:" in answers[0] and "RateLimit-Policy:" in answers[0]
        assert '"limits"' in answers[-1]
    finally:
        down = subprocess.run([os.path.join(ROOT, "dev"), "down"], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert down.returncode == 0, down.stderr

    def nothing_left():
        listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, timeout=30, check=True).stdout
        return str(tmp_path) not in listing

    eventually(nothing_left, 10, "proxy, CRM and Redis are gone")
