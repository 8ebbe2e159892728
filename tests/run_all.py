#!/usr/bin/env python3
"""Every test there is, with counts. Called by ./dev test, which has installed what is needed.

    run_all.py [PART...]     parts: lint unit sim integration helm image bench asan tsan; beyond the gate: integration-asan
                             integration-tsan; all: every one of these (default: all but the two beyond the gate)

The integration tests once more under each sanitizer take as long as all the rest: they are for before a release, and for
whoever touched threads, memory or the life of an exchange.

Three things go on at the same time, because most tests wait more than they work: what is needed is built in the background,
with low priority and in the order in which it is needed; the programs of one room each run one after the other; and so do
the integration tests. A part named alone runs as it does among the others.

One line a program when it has ended, the failures again at the end, and as the last line exactly "N passed, N failed".
Exit 0 only when nothing failed and something passed.
"""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, "build")
STARTED = time.monotonic()
# What runs one after the other; the tracks run side by side.
TRACKS = [["lint", "unit", "sim", "helm", "image", "bench", "asan", "tsan"],
          ["integration", "integration-asan", "integration-tsan"]]
GATE = ["lint", "unit", "sim", "integration", "helm", "image", "bench", "asan", "tsan"]
BEYOND = ["integration-asan", "integration-tsan"]
# A sanitizer that finds something ends the program with this code, so that it is not taken for a test's own failure.
SANITIZER_ENV = {
    # Link order: one test puts a library before the sanitizer's that tells the program another time.
    "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=1:abort_on_error=0:exitcode=99:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=99:second_deadlock_stack=1:history_size=4",
}


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.failures = []  # "part program: what"
        self._lock = threading.Lock()

    def add(self, what, passed, failures, seconds, output=""):
        """The output is shown when something failed."""
        mark = "ok" if not failures else "FAILED"
        line = f"[{time.monotonic() - STARTED:6.1f} s] {what}: {passed} passed, {len(failures)} failed ({seconds:.1f} s) {mark}"
        with self._lock:
            self.passed += passed
            self.failed += len(failures)
            self.failures += [f"{what}: {failure}" for failure in failures]
            print(f"{output}\n{line}" if failures and output else line, flush=True)


def announce(text):
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def run(command, timeout, env=None, cwd=ROOT):
    """(exit code, output); a command that does not end in time is killed with its children and counts as code 124."""
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        return 124, output.decode("utf-8", "replace") + f"\nkilled after {timeout} s"


def one_check(tally, what, command, timeout=300, env=None, cwd=ROOT):
    """A command that is one test: it passes with exit code 0."""
    started = time.monotonic()
    code, output = run(command, timeout, env, cwd)
    tally.add(what, int(code == 0), [] if code == 0 else [f"exit code {code}"], time.monotonic() - started, output[-4000:])
    return code == 0


# ---- builds

# What starts threads or shares something between them. The other rooms are pure: one thread, nothing to race with.
THREADED = ["test_quota", "test_journal", "test_billing", "test_net", "test_redis", "test_telemetry", "test_identity", "test_flow",
            "test_admin", "test_cli"]
# Random histories that one thread plays, for minutes under this sanitizer, which would find nothing in them.
ONE_THREAD = ["LeaseEngineRandom.*", "LeaseOracle.*", "MemoryLedgerOracle.*", "RollingWindow*", "ScriptWindowOracle.*",
              "ScriptsAndStoreModel.*", "SeatDifferential.*"]

# part: (preset, targets; none is all), in the order in which they are built.
BUILDS = {
    "integration": [("release", ("tollgate", "standin_crm"))],
    "helm": [("release", ("tollgate",))],
    "image": [("release", ("tollgate",))],
    "sim": [("release", ("tollgate_sim",))],
    "unit": [("release", ())],
    "bench": [("release", ())],
    # The stand-in is not what is tested: the sanitized proxy is tried against the ordinary one.
    "integration-asan": [("asan", ("tollgate",)), ("release", ("standin_crm",))],
    "asan": [("asan", ())],
    "integration-tsan": [("tsan", ("tollgate",)), ("release", ("standin_crm",))],
    "tsan": [("tsan", tuple(THREADED))],
}
# Tests that run meanwhile go first. Where the kernel schedules by session, `nice` counts within the session only.
LOW_PRIORITY = ["sh", "-c", '(echo 15 >/proc/self/autogroup) 2>/dev/null; exec nice -n 15 "$@"', "build"]


def compile_preset(tally, preset, targets):
    what = " ".join([preset, *targets])
    announce(f"building {what}")
    started = time.monotonic()
    if not os.path.exists(os.path.join(BUILD, preset, "build.ninja")):
        code, output = run(["cmake", "--preset", preset], 300)
        if code != 0:
            tally.add(f"configure {preset}", 0, [f"exit code {code}"], time.monotonic() - started, output[-4000:])
            return False
    code, output = run([*LOW_PRIORITY, "ninja", "-C", os.path.join(BUILD, preset), "-j", str(os.cpu_count() or 2), *targets], 3600)
    if code != 0:
        tally.add(f"build {what}", 0, [f"exit code {code}"], time.monotonic() - started, output[-8000:])
        return False
    announce(f"built {what} in {time.monotonic() - started:.0f} s")
    return True


class Builds:
    """Builds one after the other on a thread of its own."""

    def __init__(self, tally, parts):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.jobs = {}
        for part in BUILDS:
            for job in BUILDS[part] if part in parts else []:
                if job not in self.jobs:
                    self.jobs[job] = pool.submit(compile_preset, tally, *job)

    def done(self, part):
        """Waits for what the part needs; False when it could not be built."""
        return all([self.jobs[job].result() for job in BUILDS.get(part, [])])


# ---- programs


def gtest_program(tally, preset, program, prefix, without):
    """Runs one GoogleTest program, but for the cases that are named, and counts its cases from its own report."""
    name = os.path.basename(program)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tg_") as scratch:
        report = os.path.join(scratch, "report.json")
        env = {**SANITIZER_ENV, "TMPDIR": scratch}
        code, output = run([*prefix, program, f"--gtest_output=json:{report}", "--gtest_brief=1",
                            f"--gtest_filter=-{':'.join(without)}"], 900, env, scratch)
        passed, failures = 0, []
        try:
            with open(report, encoding="utf-8") as file:
                for suite in json.load(file)["testsuites"]:
                    for case in suite["testsuite"]:
                        if case.get("result") == "SKIPPED" or case.get("status") == "NOTRUN":
                            continue
                        if case.get("failures"):
                            failures.append(f"{suite['name']}.{case['name']}")
                        else:
                            passed += 1
        except (OSError, ValueError, KeyError):
            failures.append(f"ended without a report, exit code {code}")
    if code != 0 and not failures:
        failures.append(f"exit code {code} (99: a sanitizer complained)")
    tally.add(f"{preset} {name}", passed, failures, time.monotonic() - started, output[-8000:])


def unit_programs(tally, preset, prefix=(), targets=(), without=(), at_once=1):
    folder = os.path.join(BUILD, preset)
    known = []
    for directory in (folder, os.path.join(folder, "tests")):
        known += [p for p in sorted(glob.glob(os.path.join(directory, "test_*"))) if os.access(p, os.X_OK) and os.path.isfile(p)]
    listed = registered_tests(folder)
    if targets:  # others may lie there from an older build
        known = [program for program in known if os.path.basename(program) in targets]
    programs = [program for program in known if os.path.basename(program)[len("test_"):] in listed]  # no left-overs of older trees
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for running in [pool.submit(gtest_program, tally, preset, program, prefix, without) for program in programs]:
            running.result()
    for name, command in listed.items():
        if name.startswith("fuzz_") and not targets:
            one_check(tally, f"{preset} corpus {name}", [*prefix, *command], 600, SANITIZER_ENV)
    if not known:
        tally.add(f"{preset} unit programs", 0, ["none were built"], 0)


def registered_tests(folder):
    """name -> command of what CMake registered with add_test."""
    _, output = run(["ctest", "--test-dir", folder, "--show-only=json-v1"], 60)
    start = output.find("{")
    return {test["name"]: test["command"] for test in json.loads(output[start:])["tests"] if "command" in test}


def pytest_folder(tally, what, folder, env, extra=(), timeout=1500, prefix=()):
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tg_") as scratch:
        report = os.path.join(scratch, "report.xml")
        code, output = run([*prefix, "/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *extra,
                            os.path.join(ROOT, folder)], timeout, {"PYTHONDONTWRITEBYTECODE": "1", **env})
        passed, failures = 0, []
        try:
            for case in xml.etree.ElementTree.parse(report).iter("testcase"):
                if case.find("failure") is not None or case.find("error") is not None:
                    failures.append(f"{case.get('classname')}.{case.get('name')}")
                elif case.find("skipped") is None:
                    passed += 1
        except (OSError, xml.etree.ElementTree.ParseError):
            failures.append(f"ended without a report, exit code {code}")
    if code not in (0, 5):
        failures = failures or [f"exit code {code}"]
    tally.add(what, passed, failures, time.monotonic() - started, output[-20000:])


def tsan_prefix():
    """GCC 12's thread sanitizer dislikes wide address-space randomisation."""
    code, _ = run(["setarch", os.uname().machine, "-R", "true"], 10)
    return ["setarch", os.uname().machine, "-R"] if code == 0 else []


# ---- the parts


def part_lint(tally):
    for script in ["dev", ".ci/run"]:
        one_check(tally, f"shellcheck {script}", ["shellcheck", script])
    for source in sorted(glob.glob(os.path.join(ROOT, "tests/**/*.py"), recursive=True) + glob.glob(os.path.join(ROOT, "bench/**/*.py"), recursive=True)):
        if "node_modules" in source:
            continue
        one_check(tally, f"python {os.path.relpath(source, ROOT)}",
                  ["/usr/bin/python3", "-c", "import ast,sys; ast.parse(open(sys.argv[1], encoding='utf-8').read(), sys.argv[1])", source])


def part_unit(tally):
    unit_programs(tally, "release")
    tollgate = os.path.join(BUILD, "release", "tollgate")
    if os.path.exists(tollgate):
        tests = registered_tests(os.path.join(BUILD, "release"))
        if not any("example" in name for name in tests):
            one_check(tally, "tollgate version", [tollgate, "version"])


def part_sim(tally):
    """Some hundred seeds, the negative controls and the small world; each is one check."""
    program = os.path.join(BUILD, "release", "tollgate_sim")
    one_check(tally, "simulator, 300 seeds", [program, "--runs", "300"], 600)
    one_check(tally, "simulator, every protection switched off is caught", [program, "--controls"], 600)
    one_check(tally, "simulator, small world", [program, "--small-world"], 600)
    one_check(tally, "simulator, store operations per 1000 calls", [program, "--ops-table"], 600)
    one_check(tally, "simulator on a real Redis", [program, "--redis", "--runs", "5"], 600)


def part_asan(tally):
    unit_programs(tally, "asan")


def part_tsan(tally):
    unit_programs(tally, "tsan", tsan_prefix(), THREADED, ONE_THREAD, at_once=2)  # the last of all: nothing else goes on


def integration(tally, preset, extra=(), prefix=()):
    env = {**SANITIZER_ENV, "TOLLGATE_BINARY": os.path.join(BUILD, preset, "tollgate"), "TOLLGATE_FLAVOUR": preset,
           "STANDIN_BINARY": os.path.join(BUILD, "release", "standin_crm")}
    pytest_folder(tally, f"integration {preset}", "tests/integration", env, extra, prefix=prefix)


def part_integration(tally):
    integration(tally, "release")


def part_integration_asan(tally):
    integration(tally, "asan", ["-m", "not slow"])


def part_integration_tsan(tally):
    integration(tally, "tsan", ["-m", "not slow"], tsan_prefix())


def part_helm(tally):
    pytest_folder(tally, "helm chart", "tests/helm", {"TOLLGATE_BINARY": os.path.join(BUILD, "release", "tollgate")})


def part_image(tally):
    pytest_folder(tally, "container image", "tests/image", {"TOLLGATE_BINARY": os.path.join(BUILD, "release", "tollgate")})


def part_bench(tally):
    micro = os.path.join(BUILD, "release", "bench_micro")
    if os.path.exists(micro):
        one_check(tally, "bench micro, tiny", [micro, "--benchmark_min_time=0.001"], 300)
    one_check(tally, "bench compare, tiny", ["/usr/bin/python3", "bench/compare/compare.py", "--tiny", "--tollgate",
                                             os.path.join(BUILD, "release", "tollgate")], 300)
    one_check(tally, "instructions of a metered request", ["/usr/bin/python3", "bench/instructions/instructions.py", "--tollgate",
                                                           os.path.join(BUILD, "release", "tollgate")], 300)
    one_check(tally, "soak, tiny", ["/usr/bin/python3", "tests/endurance/soak.py", "--tiny"], 180)


def main():
    parser = argparse.ArgumentParser(description="Runs the tests and counts them.")
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"{' '.join(GATE)} (default: these); {' '.join(BEYOND)}; all: every one of them")
    chosen = parser.parse_args().parts or GATE
    if chosen == ["all"]:
        chosen = GATE + BEYOND
    unknown = [part for part in chosen if part not in GATE + BEYOND]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are: {' '.join(GATE + BEYOND)}, all")
    tally = Tally()
    builds = Builds(tally, chosen)

    def track(parts):
        for part in parts:
            if part not in chosen or not builds.done(part):
                continue
            announce(f"part {part}")
            started = time.monotonic()
            try:
                globals()["part_" + part.replace("-", "_")](tally)
            except Exception as error:  # a broken part must not hide the others
                tally.add(part, 0, [f"{type(error).__name__}: {error}"], 0)
            announce(f"part {part} took {time.monotonic() - started:.0f} s")

    with concurrent.futures.ThreadPoolExecutor(len(TRACKS)) as pool:
        for running in [pool.submit(track, parts) for parts in TRACKS]:
            running.result()
    if tally.failures:
        print("\nfailed:")
        for failure in tally.failures:
            print("  " + re.sub(r"\s+", " ", failure))
    print(f"\n{tally.passed} passed, {tally.failed} failed")
    sys.exit(0 if tally.failed == 0 and tally.passed > 0 else 1)


if __name__ == "__main__":
    if shutil.which("ninja") is None:
        sys.exit("run ./dev test, which installs what is needed")
    main()
