"""The container recipe, checked without a container engine: its packages exist, its sources exist, its run-time packages are
those that the built program is linked to, and it does not run as root. Building the image itself needs docker or podman."""
import fnmatch
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLLGATE = os.environ.get("TOLLGATE_BINARY", os.path.join(ROOT, "build/release/tollgate"))


def instructions():
    """[(stage, instruction, arguments)], continuation lines joined."""
    text = open(os.path.join(ROOT, "Dockerfile"), encoding="utf-8").read()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    out, stage = [], -1
    for line in joined.splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        out.append((stage, word, rest.strip()))
    return out


def packages(stage):
    found = []
    for number, word, rest in instructions():
        if number == stage and word == "RUN" and "apt-get install" in rest:
            listed = rest.split("--no-install-recommends", 1)[1].split("&&")[0]
            found += listed.split()
    return found


def test_both_stages_start_from_debian_12():
    bases = [rest for _, word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2 and all(base.startswith("debian:12-slim") for base in bases)


@pytest.mark.parametrize("stage", [0, 1], ids=["build", "run"])
def test_every_package_exists_in_debian(stage):
    names = packages(stage)
    assert len(names) > 8
    known = subprocess.run(["apt-cache", "pkgnames"], capture_output=True, text=True, timeout=60, check=True).stdout.split()
    if len(known) < 20_000:
        pytest.skip("no package lists on this machine (apt-get update)")
    assert [name for name in names if name not in set(known)] == []


def test_recommendations_are_left_out_and_lists_removed():
    for _, word, rest in instructions():
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest


def test_what_is_copied_exists_and_is_not_ignored():
    ignored = [line.strip() for line in open(os.path.join(ROOT, ".dockerignore"), encoding="utf-8") if line.strip()]
    for _, word, rest in instructions():
        if word != "COPY" or "--from=" in rest:
            continue
        for source in rest.split()[:-1]:
            assert os.path.exists(os.path.join(ROOT, source)), source
            assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), source


def test_what_cmake_reads_without_tests_is_copied():
    copied = {source for _, word, rest in instructions() if word == "COPY" and "--from=" not in rest for source in rest.split()[:-1]}
    text = open(os.path.join(ROOT, "CMakeLists.txt"), encoding="utf-8").read()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    folders = set(re.findall(r"tollgate_room\(\w+ DIR (\w+)", text)) | set(re.findall(r"\$\{CMAKE_SOURCE_DIR\}/(\w+)/", text))
    assert folders - {"tests", "bench"} <= copied


def test_the_program_finds_its_libraries():
    """Every shared library that the program is linked to belongs to a package of the run-time stage, or to what those need."""
    if not os.access(TOLLGATE, os.X_OK):
        pytest.fail(f"{TOLLGATE} is missing")
    listing = subprocess.run(["objdump", "-p", TOLLGATE], capture_output=True, text=True, timeout=60, check=True).stdout
    needed = re.findall(r"NEEDED\s+(\S+)", listing)
    assert needed
    closure = set(packages(1)) | {"libc6", "libgcc-s1", "libstdc++6"}
    missing = []
    for library in needed:
        owners = subprocess.run(["dpkg", "-S", f"*/{library}"], capture_output=True, text=True, timeout=60, check=False).stdout
        names = {line.split(":", 1)[0] for line in owners.splitlines()}
        if not names & closure:
            missing.append((library, sorted(names)))
    assert missing == []


def test_it_runs_as_an_unprivileged_number_and_takes_signals_itself():
    last = [(word, rest) for stage, word, rest in instructions() if stage == 1]
    user = [rest for word, rest in last if word == "USER"]
    assert user and all(int(part) >= 10_000 for part in user[-1].split(":"))
    entry = [rest for word, rest in last if word == "ENTRYPOINT"]
    assert entry and entry[-1].startswith("["), "the exec form: a shell in between would swallow SIGTERM"
    # The chart runs the same user.
    values = open(os.path.join(ROOT, "helm/tollgate/values.yaml"), encoding="utf-8").read()
    assert f"runAsUser: {user[-1].split(':')[0]}" in values
