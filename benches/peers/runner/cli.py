"""The command line of benches/peers/run.py."""

import argparse
import datetime
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from figures.cli import machine
from figures.process import Cpus, Failure
from figures.rounds import DISTURBED, Machine, interleave, say

from . import markdown, page
from .about import ABOUT
from .plan import Plan
from .results import Section
from .roster import BUILT, ROOT, Roster

OFTEN = ("echo", "churn")  # by default in all rounds; the others once
SELDOM = ("memory", "syscalls", "timers", "heartbeats")  # repeatable, or long: three times at most
SCENARIOS = ("echo", "churn", "memory", "syscalls", "deadline", "firehose", "proxy", "timers", "wake", "heartbeats", "workers")


@dataclass
class Run:
    """All there is to tell."""

    machine: str
    versions: dict
    rounds: int
    date: str
    left_out: list
    notes: list = field(default_factory=list)
    sections: list = field(default_factory=list)

    def versions_line(self):
        return "; ".join(f"{name} {version}" for name, version in self.versions.items()) + "."

    def json(self):
        section = lambda s: {
            "scenario": s.name, "title": s.title, "parameters": s.parameters, "families": s.families, "notes": s.notes, "rounds": s.rounds,
            "medians": {name: {metric.key: s.median(name, metric.key) for metric in s.metrics} for name in s.rounds},
        }
        head = {"machine": self.machine, "versions": self.versions, "date": self.date, "left out": self.left_out, "notes": self.notes}
        return json.dumps({**head, "sections": [section(s) for s in self.sections]}, indent=1) + "\n"


def parse():
    parser = argparse.ArgumentParser(prog="run.py", description=sys.modules["__main__"].__doc__)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--quick", action="store_true", help="a minute or two, to see that it runs, not to quote")
    amount.add_argument("--full", action="store_true", help="every size and depth with every number of connections, in long rounds: two hours")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="only contestants whose name has it, and C epoll; repeatable")
    parser.add_argument("--scenario", action="append", default=[], choices=SCENARIOS, help="only this; repeatable")
    parser.add_argument("--rounds", type=int, help="rounds (3, --full 5, --quick 1); by default all but echo and churn have one")
    parser.add_argument("--seconds", type=float, help="how long each measurement by the clock is (0.5, quick 0.25, full 4)")
    parser.add_argument("--patience", type=float, metavar="S", help="seconds in all to wait for a quiet computer (30, quick 0, full 600)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where to write (target/peers/results/DATE)")
    parser.add_argument("--readme", action="store_true", help="fill the table in docs/peers.md too")
    parser.add_argument("--go", metavar="PATH", help="the go command, when it is not in the PATH")
    parser.add_argument("--cpus", metavar="S,L", help="CPU of the server, CPU of the load")
    parser.add_argument("--no-build", action="store_true", help="use what was built before")
    settings = parser.parse_args()
    settings.more_rounds = settings.rounds or (5 if settings.full else 1)
    settings.rounds = settings.rounds or (1 if settings.quick else 5 if settings.full else 3)
    if settings.patience is None:
        settings.patience = 0 if settings.quick else 600 if settings.full else 30
    try:
        settings.cpus = tuple(map(int, settings.cpus.split(","))) if settings.cpus else None
        if settings.cpus and (len(settings.cpus) != 2 or not set(settings.cpus) <= os.sched_getaffinity(0)):
            raise ValueError
    except ValueError:
        parser.error("--cpus wants two of this computer's CPUs, as 0,1")
    return settings


def carry_out(step, settings):
    """Runs a step, each contestant once a round."""
    rounds = settings.rounds if step.name in OFTEN else settings.more_rounds
    if step.name in SELDOM:
        rounds = min(rounds, 3)
    outcome = interleave(step.contestants, rounds, step.measure, by_clock=step.by_clock)
    families = {peer.name: peer.family for peer in step.contestants}
    section = Section(step.name, step.title, step.metrics, families, outcome.rounds, about=ABOUT[step.name], parameters=step.parameters)
    section.notes = [f"{name} is left out: {why}" for name, why in outcome.failures.items()]
    if section.disturbed():
        names = ", ".join(section.disturbed())
        section.notes.append(f"Do not quote this: no round without other processes' disturbance for {names}. So all rounds of all count.")
    return section


def finish(run, settings):
    """Writes what there is, also when it was interrupted."""
    where = settings.results or BUILT / "results" / time.strftime("%Y-%m-%d-%H%M%S")
    where.mkdir(parents=True, exist_ok=True)
    report = markdown.report(run)
    (where / "report.md").write_text(report)
    (where / "report.json").write_text(run.json())
    (where / "report.html").write_text(page.html(run))
    print(report)
    print(f"written to {where}: report.md, report.json, report.html")
    if settings.readme:
        filled = markdown.fill_document(ROOT / "docs" / "peers.md", run)
        print("docs/peers.md is filled" if filled else f"docs/peers.md has no two lines `{markdown.MARK}`: not filled")


def disturbed(sections):
    count = sum(bool(section.disturbed()) for section in sections)
    if not count:
        return []
    return [
        f"{count} of {len(sections)} tables were disturbed by other processes, which used more than {DISTURBED:.0%} of a CPU: "
        "trust the ratios, not the absolute figures. The report says which."
    ]


def main():
    settings = parse()
    if sys.platform != "linux":
        print("run.py: pinning, memory and CPU are read as Linux has them; elsewhere see examples/echo_bench", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that every `finally` runs
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Cpus.choose(settings.cpus)
    Machine.patience = settings.patience
    try:
        roster = Roster(settings.only, build=not settings.no_build, go=settings.go)
    except Failure as failure:
        print(f"run.py: {failure}", file=sys.stderr)
        return 2
    left_out = [f"{name}: {why}" for name, why in roster.left_out.items()]
    run = Run(machine(), roster.versions(), settings.rounds, datetime.date.today().isoformat(), left_out)
    if settings.quick:
        run.notes.append("--quick: to see that it runs, not to quote.")
    plan = Plan(roster, settings)
    began = time.monotonic()
    status = 0
    try:
        for step in plan.steps():
            say(f"[{time.monotonic() - began:.0f} s] {step.title}")
            if step.contestants:
                run.sections.append(carry_out(step, settings))
    except SystemExit as interrupted:
        run.notes.append("Interrupted: what follows is what there was until then.")
        status = interrupted.code
    run.left_out += dict.fromkeys(plan.left_out)
    run.notes += disturbed(run.sections)
    say(f"measured for {time.monotonic() - began:.0f} s")
    if run.sections:
        finish(run, settings)
    return status
