"""What the runs say: medians, ratios with how sure they are, and the machine they were taken on."""
import os
import platform
import re
import statistics
import subprocess

import peers

# What Tollgate aims at: group -> (subject, peer, figure, at most that many times the peer's). None: told, no aim.
# "upstream" as a peer stands for the CPU that the upstream used in the same run.
AIMS = {
    "proxying": [("tollgate", "nginx", "cost", 1.00), ("tollgate", "haproxy", "cost", None),
                 ("tollgate", "haproxy-jwt", "cost", 0.80), ("tollgate", "nginx-limit-req", "cost", None),
                 ("tollgate", "nginx-lua-redis", "cost", 0.28), ("tollgate", "upstream", "x_up", 2.00),
                 ("tollgate", "nginx", "p99_us", 1.00), ("tollgate-plain", "nginx", "cost", 0.90),
                 ("tollgate-plain", "haproxy", "cost", None), ("tollgate", "tollgate-plain", "cost", None)],
    "rejecting": [("tollgate", "nginx-limit-req", "cost", 0.85), ("tollgate", "haproxy-jwt", "cost", 0.70),
                  ("tollgate", "nginx-lua-redis", "cost", None)],
    "tls": [("tollgate", "nginx", "cost", 0.95), ("tollgate", "haproxy", "cost", None)],
    "handshake": [("tollgate", "haproxy", "cost", 1.00), ("tollgate", "nginx", "cost", None)],
    "large": [("tollgate", "haproxy-splice", "cost", 1.00), ("tollgate", "nginx-tuned", "cost", 0.85),
              ("tollgate", "haproxy", "cost", None), ("tollgate", "nginx", "cost", None)],
    "idle": [("tollgate", "nginx", "cost", 1.00), ("tollgate", "haproxy", "cost", None),
             ("tollgate-tls", "nginx-tls", "cost", 1.00), ("tollgate-tls", "haproxy-tls", "cost", 1.00)],
}
TITLES = {
    "proxying": "1 KiB replies over keep-alive connections",
    "rejecting": "every call refused with 429",
    "tls": "1 KiB replies over TLS 1.3 keep-alive connections",
    "handshake": "a connection with a full TLS 1.3 handshake",
    "large": "100 KiB replies over keep-alive connections",
    "idle": "memory of an idle keep-alive connection that has made a call",
}
UNITS = {group: "CPU us/req" for group in TITLES} | {"handshake": "CPU us/conn", "idle": "bytes/conn"}
FIGURES = {"cost": "", "x_up": "", "p99_us": " (p99)"}


def interval(values):
    """(median, low, high): an interval that holds the true median in at least 95 % of cases whatever the distribution, from the
    order of the values (sign test); below six values that needs more than there are, and it is their minimum and maximum."""
    ordered = sorted(values)
    n = len(ordered)
    outside, term, k = 0.0, 0.5 ** n, 0  # k values may be cut off at either end
    while True:
        outside += 2 * term
        if outside > 0.05:
            break
        k += 1
        term = term * (n - k + 1) / k
    k = max(0, k - 1)
    return statistics.median(ordered), ordered[k], ordered[n - 1 - k]


def difference(low, high, rounds):
    """In words; an interval that holds 1 shows none, and fewer than three rounds show nothing."""
    if rounds < 3:
        return "unknown"
    if high < 1:
        return "less"
    return "more" if low > 1 else "no difference"


def verdict(low, high, rounds, aim):
    """The aim and whether it is met; by the whole interval, or it is not decided."""
    if aim is None:
        return ""
    told = "not decided"
    if rounds >= 3 and high <= aim:
        told = "met"
    elif rounds >= 3 and low > aim:
        told = "missed"
    return f"<= {aim:.2f}  {told}"


def ratios(group, rows):
    """One entry for each aim whose two cases were measured: ratios within rounds, since rounds are what a drift leaves alone."""
    rounds = {}
    for row in rows:
        rounds.setdefault(row["round"], {})[row["case"]] = row
    out = []
    for subject, peer, figure, aim in AIMS[group]:
        if peer == "upstream":
            values = [found[subject]["x_up"] for found in rounds.values() if subject in found]
        else:
            values = [found[subject][figure] / found[peer][figure] for found in rounds.values()
                      if subject in found and peer in found and found[peer][figure] > 0]
        if values:
            middle, low, high = interval(values)
            out.append({"group": group, "subject": subject, "peer": peer + FIGURES[figure], "ratio": middle,
                        "low": low, "high": high, "rounds": len(values), "difference": difference(low, high, len(values)), "aim": aim,
                        "verdict": verdict(low, high, len(values), aim)})
    return out


def print_group(group, rows):
    idle = group == "idle"
    print(f"\n{group}: {TITLES[group]}")
    head = f"  {'case':17}{UNITS[group]:>12}{'min-max':>16}"
    if not idle:
        head += f"{'in Redis':>10}{'x up':>7}{'per s':>9}{'p50 us':>8}{'p99 us':>8}"
    print(head + "  what it does")
    for name in peers.CASES[group]:
        mine = [row for row in rows if row["case"] == name]
        if not mine:
            continue

        def middle(key, mine=mine):
            return statistics.median(row[key] for row in mine)

        def cell(key, width, digits=0, middle=middle):
            return f"{middle(key):{width}.{digits}f}" if middle(key) > 0 else f"{'-':>{width}}"

        digits = 0 if idle else 1
        spread = f"{min(row['cost'] for row in mine):.{digits}f}-{max(row['cost'] for row in mine):.{digits}f}"
        line = f"  {name:17}{middle('cost'):12.{digits}f}{spread:>16}"
        if not idle:
            line += cell("store_us", 10, 1) + cell("x_up", 7, 2) + cell("per_second", 9) + cell("p50_us", 8) + cell("p99_us", 8)
        print(line + "  " + peers.CASES[group][name][2])
    found = ratios(group, rows)
    if found:
        print(f"  {'ratio':36}{'median [low-high]':>20}  {'difference':15}{'aim':>7}")
    for entry in found:
        name = f"{entry['subject']} / {entry['peer']}"
        value = f"{entry['ratio']:.2f} [{entry['low']:.2f}-{entry['high']:.2f}]"
        told = entry["difference"] if entry["peer"] != "upstream" else ""
        print(f"  {name:36}{value:>20}  {told:15}{entry['verdict']}".rstrip())
    if found and found[0]["rounds"] < 6:
        print(f"  {found[0]['rounds']} round(s): low and high are the extremes; 95 % sure only with --rounds 6 or more"
              + (" (idle: 18)" if idle else ""))


def first_line(command, pattern):
    """What `pattern` finds in the output of a program that tells its version; None when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else None


def machine(binary):
    """[(what, text)]: CPU, kernel and the versions of all that takes part."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    name = model.group(1) if model else platform.machine()
    cores = f"{len(peers.CPUS)} of {os.cpu_count()} CPUs usable; load average {os.getloadavg()[0]:.1f}"
    versions = {
        "tollgate": first_line([binary, "version"], r"tollgate (\S+)"),
        "nginx": peers.NGINX and first_line([peers.NGINX, "-v"], r"nginx/(\S+)"),
        "haproxy": peers.HAPROXY and first_line([peers.HAPROXY, "-v"], r"version (\S+)"),
        "nginx-lua": not peers.missing("lua") and first_line(
            ["dpkg-query", "-W", "-f=${Version}", "libnginx-mod-http-lua"], r"(\S+)"),
        "redis": first_line(["redis-server", "--version"], r"v=(\S+)"),
        "openssl": first_line(["openssl", "version"], r"OpenSSL (\S+)"),
        "wrk": first_line(["wrk", "-v"], r"wrk (?:debian/)?(\S+)"),
    }
    return [("machine", f"{name}, {cores}"), ("kernel", f"{platform.system()} {platform.release()}"),
            ("versions", ", ".join(f"{part} {version}" for part, version in versions.items() if version))]
