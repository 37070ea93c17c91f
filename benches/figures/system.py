"""What the system sees of a server: memory, system calls, sleep."""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from .process import Failure, IdleLoad, Server, run_load
from .rounds import interleave, spread

WARM_UP = 300  # connections open before counting, so that tables and buffers exist
FAR = 300  # seconds: an idle timeout that does not come while we look


def memory(roster, report, settings):
    """What N more connections add to the memory, divided by N."""
    count = 2_000 if settings.quick else 10_000

    def measure(contestant):
        with Server(contestant, huge_pages=False) as server, IdleLoad(server, WARM_UP):
            before = server.memory()
            with IdleLoad(server, count):
                return {"bytes": (server.memory() - before) / count}

    outcome = interleave(roster.timed(FAR), settings.rounds or (1 if settings.quick else 3), measure, by_clock=False)
    columns = [("bytes each", lambda name: spread(outcome.values(name, lambda m: m["bytes"])))]
    report.section("memory", f"User memory per idle connection, {count:,} connections", columns, outcome)
    return 0


def strace_missing(what):
    if shutil.which("strace"):
        return False
    print(f"{what}: strace is not installed")
    return True


def calls(contestant, messages):
    """System calls of a whole run of that many messages, by name, with failed ones counted again as `name failed`."""
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "summary"
        # -D: strace is the child and the server the process that we started.
        with Server(contestant, ["strace", "-D", "-f", "-c", "-o", str(summary)]) as server:
            run_load(server, "--connections", 50, "--messages", messages, "--check", within=120)
            server.stop()
            until = time.monotonic() + 10
            while " total" not in (summary.read_text() if summary.exists() else ""):
                if time.monotonic() > until:
                    raise Failure("strace wrote no summary")
                time.sleep(0.02)
            text = summary.read_text()
    counts = Counter()
    for number, errors, name in re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(\d*)\s*(\w+)$", text, re.M):
        if name != "total":
            counts[name] += int(number)
            counts["failed"] += int(errors or 0)
    return counts


def syscalls(roster, report, settings):
    if strace_missing("syscalls"):
        return 2
    short, long = (1_000, 3_000) if settings.quick else (2_000, 12_000)

    def slope(contestant):
        before, after = calls(contestant, short), calls(contestant, long)
        return {name: (after[name] - before[name]) / (long - short) for name in after}

    outcome = interleave(roster.plain(without=()), settings.rounds or 1, slope, by_clock=False)

    def every(name, keep):
        measurement = outcome.rounds[name][0]
        return {call: each for call, each in measurement.items() if keep(call) and abs(each) >= 0.0005}

    def listed(name):
        each = every(name, lambda call: call != "failed")
        return ", ".join(f"{call} {n:.3f}" for call, n in sorted(each.items(), key=lambda item: -item[1]))

    columns = [
        ("in all", lambda name: f"{sum(every(name, lambda call: call != 'failed').values()):.3f}"),
        ("by name", listed),
        ("failed (EAGAIN)", lambda name: f"{outcome.rounds[name][0].get('failed', 0):.3f}"),
    ]
    report.section("syscalls", "System calls per message when busy (50 connections, all ready each turn)", columns, outcome)
    return 0


def traced_calls(server, seconds):
    """The system calls that strace sees in that many seconds."""
    with tempfile.NamedTemporaryFile() as trace:
        strace = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", trace.name, "-p", str(server.pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            time.sleep(1)  # attaching interrupts the call it sleeps in: that one is ours
            if strace.poll() is not None:
                raise Failure((strace.stderr.read().strip().splitlines() or ["strace ended"])[-1])
            before = len(Path(trace.name).read_text().splitlines())
            time.sleep(seconds)
            return len(Path(trace.name).read_text().splitlines()) - before
        finally:
            strace.terminate()
            strace.wait(timeout=10)
            strace.stderr.close()


def idle(roster, report, settings):
    if strace_missing("idle"):
        return 2
    count, seconds = (1_000, 1) if settings.quick else (10_000, 3)

    def measure(contestant):
        with Server(contestant) as server, IdleLoad(server, count):
            time.sleep(1)
            before = server.wake_ups()
            time.sleep(seconds)
            return {"wake-ups": server.wake_ups() - before, "calls": traced_calls(server, seconds)}

    outcome = interleave(roster.timed(FAR), settings.rounds or 1, measure, by_clock=False)
    columns = [
        ("wake-ups", lambda name: spread(outcome.values(name, lambda m: m["wake-ups"]))),
        ("system calls, by strace", lambda name: spread(outcome.values(name, lambda m: m["calls"]))),
    ]
    report.section("idle", f"{count:,} idle connections and a far idle timeout: what happens in {seconds} s", columns, outcome)
    return 0
