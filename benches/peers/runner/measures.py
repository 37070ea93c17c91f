"""One measurement each: a fresh server, a load, some numbers. Everything is bounded in time."""

import json
import sys
import time
from contextlib import contextmanager

from figures import process, system
from figures.contestants import BUILT as FLOORS_BUILT
from figures.process import Cpus, IdleLoad, Server

FAR = 300  # seconds: an idle timeout that does not come while we look
WARM_UP = 500  # messages before measuring, so that threads and tables exist


def on_cpus(cpus):
    """A wrapper for figures.process.Server: the program runs there, instead of on the server's CPU."""
    return [sys.executable, "-c", f"import os, sys; os.sched_setaffinity(0, {set(cpus)}); os.execvp(sys.argv[1], sys.argv[1:])"]


def load(server, seconds, warmup, *options):
    """The load's report, flat. Its status says that every byte of every echo was right."""
    report = process.run_load(server, *options, "--seconds", seconds, "--warmup", warmup, within=seconds + warmup)
    each = 1e6 / max(1, report["messages"])
    flat = {
        "rate": report["messages_per_second"],
        "user_us": each * report["server_cpu"]["user"],
        "system_us": each * report["server_cpu"]["system"],
        "load_busy": report["load_busy"],
        **report.get("latency_us", {}),
    }
    flat["cpu_us"] = flat["user_us"] + flat["system_us"]
    for key in ("firehose_mb_per_second", "send_lag_p99_us"):
        if key in report:
            flat[key] = report[key]
    return flat


def warmed_up(server):
    """What a server does the first time, such as starting threads, is not what we measure."""
    process.run_load(server, "--connections", 50, "--messages", WARM_UP, within=30)


def echo(connections, size, depth, seconds, warmup=0.3, prepare=lambda peer: peer, wrapper=()):
    def measure(peer):
        with Server(prepare(peer).for_messages(size), wrapper) as server:
            warmed_up(server)
            flat = load(server, seconds, warmup, "--connections", connections, "--size", size, "--depth", depth)
            flat["mb"] = flat["rate"] * size / 1e6
            return flat

    return measure


def churn(seconds, warmup=0.3):
    def measure(peer):
        with Server(peer) as server:
            warmed_up(server)
            return load(server, seconds, warmup, "--churn", "--connections", 50)

    return measure


def firehose(firehoses, seconds, warmup=0.3):
    options = ["--quiet", 1_000, "--quiet-rate", 2_000, "--firehoses", firehoses, "--firehose-write", 65_536]

    def measure(peer):
        with Server(peer.for_messages(65_536)) as server:
            warmed_up(server)
            return load(server, seconds, warmup, *options)

    return measure


def memory(count):
    """What `count` more connections add to the anonymous memory, divided by `count`."""

    def measure(peer):
        with Server(peer.idle_timeout(FAR), huge_pages=False) as server, IdleLoad(server, system.WARM_UP):
            before = server.memory()
            with IdleLoad(server, count):
                return {"bytes": (server.memory() - before) / count}

    return measure


def syscalls(short, long):
    """The slope between a short and a long run under strace, which follows all threads."""

    def measure(peer):
        before, after = system.calls(peer, short), system.calls(peer, long)
        each = {name: (after[name] - before[name]) / (long - short) for name in {**before, **after}}
        failed = each.pop("failed", 0)
        names = sorted((name for name in each if abs(each[name]) >= 0.005), key=lambda name: -each[name])
        return {"calls": sum(each.values()), "failed": failed, "names": ", ".join(f"{name} {each[name]:.2f}" for name in names)}

    return measure


def deadline(seconds, warmup=0.3):
    """The same echo without and with a deadline that each read moves, one right after the other."""

    def measure(peer):
        plain = echo(50, 64, 1, seconds, warmup)(peer)
        moved = echo(50, 64, 1, seconds, warmup, prepare=lambda peer: peer.idle_timeout(FAR))(peer)
        return {
            "rate": moved["rate"],
            "ratio": moved["rate"] / plain["rate"],
            "user_us": moved["user_us"],
            "added_ns": 1e3 * (moved["user_us"] - plain["user_us"]),
        }

    return measure


@contextmanager
def backend(roster):
    """A C epoll echo on the load's CPU, for proxies to talk to."""
    floor = next(peer for peer in roster.contestants if peer.command[0] == str(FLOORS_BUILT / "epoll"))
    with Server(floor, on_cpus({Cpus.load})) as server:
        yield server


def cpu_seconds(server):
    """User and system CPU of the whole process, by its CPU clock: see clock_getcpuclockid(3)."""
    return time.clock_gettime((~server.pid << 3) | 2)


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])
