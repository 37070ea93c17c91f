"""Rounds: A B C, A B C, ... so that what disturbs the computer disturbs all; then medians and tables."""

import resource
import statistics
import sys
import time

from .process import Failure

DISTURBED = 0.15  # of one CPU, taken by others while we measured
TRIES = 3


def say(text):
    print(text, file=sys.stderr, flush=True)


def busy_seconds():
    """CPU seconds that the whole computer was busy, and those of ours: this process and its ended children."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    own = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return (user + nice + system + irq + softirq + steal) / 100, sum(usage.ru_utime + usage.ru_stime for usage in own)


class Machine:
    """Other processes use this computer too: waits for a quiet moment, and says how much they used."""

    patience = 120  # seconds, in all, to spend on waiting and on measuring again

    def __init__(self):
        self.began, (self.machine, self.own) = time.monotonic(), busy_seconds()

    def others(self):
        """The share of a CPU that others have used since."""
        machine, own = busy_seconds()
        return max(0.0, (machine - self.machine) - (own - self.own)) / (time.monotonic() - self.began)

    @classmethod
    def settle(cls):
        """Waits until others leave the CPUs, or patience ends."""
        began = time.monotonic()
        while time.monotonic() < began + cls.patience:
            machine = cls()
            time.sleep(0.2)
            if machine.others() < DISTURBED:
                break
        cls.patience -= max(0, time.monotonic() - began - 0.25)

    @classmethod
    def undisturbed(cls, measure, contestant):
        """Measures, and again if others used the CPUs. Returns the least disturbed result, with `others` added."""
        best = None
        for _ in range(TRIES):
            cls.settle()
            machine = cls()
            result = measure(contestant)
            result["others"] = round(machine.others(), 3)
            if best is None or result["others"] < best["others"]:
                best = result
            if best["others"] < DISTURBED or cls.patience <= 0:
                break
            cls.patience -= time.monotonic() - machine.began
            say(f"    others used {result['others']:.0%} of a CPU")
        return best


class Outcome:
    """What all contestants did in all rounds."""

    def __init__(self):
        self.rounds = {}  # name -> a measurement each round
        self.failures = {}  # name -> why it is out

    def values(self, name, key):
        return [key(measurement) for measurement in self.rounds[name]]

    def ratios(self, name, key, baseline):
        """Against the baseline, round by round."""
        if baseline not in self.rounds:
            return []
        pairs = zip(self.values(name, key), self.values(baseline, key))
        return [value / base for value, base in pairs if base]

    def notes(self):
        notes = [f"{name}: skipped: {why}" for name, why in self.failures.items()]
        noisy = [m["others"] for measurements in self.rounds.values() for m in measurements if m.get("others", 0) >= DISTURBED]
        if noisy:
            notes.append(f"{len(noisy)} runs were disturbed by other processes, which used up to {max(noisy):.0%} of a CPU: do not quote")
        return notes


def interleave(contestants, rounds, measure, by_clock=True):
    """Measures each contestant once a round. One that fails is left out, and the others go on."""
    outcome = Outcome()
    for number in range(rounds):
        for contestant in contestants:
            name = contestant.name
            if name in outcome.failures:
                continue
            say(f"  round {number + 1}/{rounds}: {name}")
            try:
                result = Machine.undisturbed(measure, contestant) if by_clock else measure(contestant)
                outcome.rounds.setdefault(name, []).append(result)
            except Failure as failure:
                say(f"    {failure}")
                outcome.failures[name] = str(failure)
    return outcome


def spread(values, form="{:,.0f}"):
    """`median (lowest..highest)`"""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    middle = form.format(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))}..{form.format(max(values))})"


class Report:
    """Collects Markdown for people and the same figures for JSON."""

    def __init__(self):
        self.figures = {}

    def section(self, name, title, columns, outcome):
        """A table: `columns` are (heading, function of a name giving the cell)."""
        print(f"\n### {title}\n")
        print("| | " + " | ".join(heading for heading, _ in columns) + " |")
        print("|---|" + "---:|" * len(columns))
        rows = {}
        for contestant in outcome.rounds:
            rows[contestant] = {heading: cell(contestant) for heading, cell in columns}
            print(f"| {contestant} | " + " | ".join(rows[contestant].values()) + " |")
        notes = outcome.notes()
        for note in notes:
            print(f"\n{note}")
        sys.stdout.flush()
        self.figures.setdefault(name, []).append(
            {"title": title, "table": rows, "rounds": outcome.rounds, "notes": notes}
        )
