"""The command line of benches/figures.py."""

import argparse
import json
import os
import platform
import resource
import signal
import sys
from pathlib import Path

from . import heartbeats, instructions, system, wall
from .contestants import BASELINE, Roster
from .process import Cpus, Failure
from .rounds import Machine, Report, say

COMMANDS = {
    "instructions": (instructions.measure, "user-space instructions per message, by callgrind"),
    "throughput": (wall.throughput, "messages/s and CPU per message at 1, 50, 1,000 and 15,000 connections"),
    "firehose": (wall.firehose, "latency of quiet connections beside connections that always write"),
    "churn": (wall.churn, "connects, echo, close per second"),
    "spin": (wall.spin, "one connection, ours with --spin"),
    "memory": (system.memory, "user memory per idle connection"),
    "syscalls": (system.syscalls, "system calls per message when busy"),
    "heartbeats": (heartbeats.heartbeats, "CPU of 15,000 connections with a heartbeat every 10 s, beside the pings alone"),
    "idle": (system.idle, "wake-ups with 10,000 idle connections"),
}


def parse():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="fewer, shorter rounds: to see that it runs, not to quote")
    common.add_argument("--server", action="append", default=[], metavar="'NAME=COMMAND {addr}'",
                        help="measure this beside the floors instead of our own modes; repeatable")
    common.add_argument("--only", action="append", default=[], metavar="NAME", help=f"only these, and {BASELINE}; repeatable")
    common.add_argument("--rounds", type=int, help="how often each is measured")
    common.add_argument("--seconds", type=float, help="how long each measurement by the clock is")
    common.add_argument("--patience", type=float, metavar="S", help="seconds in all to wait for others to leave the CPUs, and to measure again (120)")
    common.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    common.add_argument("--cpus", metavar="S,L", help="CPU of the server, CPU of the load")
    common.add_argument("--no-build", action="store_true", help="use the Rust binaries as they are")
    parser = argparse.ArgumentParser(prog="figures.py", description=sys.modules["__main__"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        if name == "instructions":
            command.add_argument("--check", type=Path, metavar="FILE", help="exit with 1 when a figure newly exceeds its ceiling in FILE, or did before and has grown")
            command.add_argument("--write", type=Path, metavar="FILE", help="write the figures to commit; the ceilings in FILE stay")
    commands.add_parser("all", help="everything", description="everything", parents=[common])
    parser.set_defaults(check=None, write=None)
    settings = parser.parse_args()
    try:
        settings.cpus = tuple(map(int, settings.cpus.split(","))) if settings.cpus else None
        if settings.cpus and (len(settings.cpus) != 2 or not set(settings.cpus) <= os.sched_getaffinity(0)):
            raise ValueError
    except ValueError:
        parser.error("--cpus wants two of this computer's CPUs, as 0,1")
    return settings


def machine():
    """One line that says what the figures were made on."""
    model, congestion = platform.machine(), "unknown"
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), model)
        congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        pass
    pins = f"server on CPU {Cpus.server}, load on CPU {Cpus.load}"
    if Cpus.server == Cpus.load:
        pins += " (one CPU for both: figures by the clock mean little)"
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, TCP {congestion}; {pins}"


def main():
    settings = parse()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that every `finally` runs
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Cpus.choose(settings.cpus)
    Machine.patience = settings.patience if settings.patience is not None else 0 if settings.quick else 120
    try:
        roster = Roster(settings.server, settings.only, build=not settings.no_build)
    except Failure as failure:
        print(f"figures.py: {failure}", file=sys.stderr)
        return 2
    print(machine())
    for note in roster.notes:
        print(f"\n{note}")
    if settings.quick:
        print("\n--quick: to see that it runs, not to quote.")

    report = Report()
    status = 0
    for name in COMMANDS if settings.command == "all" else [settings.command]:
        say(f"{name}:")
        status = max(status, COMMANDS[name][0](roster, report, settings))
    if settings.json:
        settings.json.write_text(json.dumps({"machine": machine(), "quick": settings.quick, "figures": report.figures}, indent=1) + "\n")
    return status
