"""What heartbeats cost: many idle connections, each pinged now and then, beside the pings alone."""

import subprocess
import time
from pathlib import Path

from .contestants import BUILT, Contestant
from .process import Cpus, Failure, Server, kill_group, pinned
from .rounds import interleave, spread

EVERY = 10  # seconds between the pings of a connection
SPREAD = EVERY / 8  # ours spreads its pings over this time, and so does the second floor
FAR = 300  # seconds: an idle timeout that is armed, and does not come

OURS = "protocol, a heartbeat every 10 s"
FLOOR = "the pings alone, one after the other"
PACED = "the pings alone, spread as ours"
QUIET = "protocol, no heartbeat"


class Peers:
    """The pinged: they swallow, count, and never answer."""

    def __init__(self, server, count):
        self.server, self.count = server, count

    def __enter__(self):
        self.process = subprocess.Popen(
            [BUILT / "pings", "--connect", self.server.address, "--connections", str(self.count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=pinned(Cpus.load),
        )
        if self.process.stdout.readline() != "open\n":
            kill_group(self.process)
            raise Failure((self.process.stderr.read().strip().splitlines() or ["pings: no connections"])[0])
        return self

    def pings(self):
        """How many have come."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline()) // 4
        except (OSError, ValueError):
            raise Failure((self.process.stderr.read().strip().splitlines() or ["pings: ended"])[0]) from None

    def __exit__(self, *_):
        kill_group(self.process)


def cpu(server):
    """Seconds of a CPU, user and system, that its threads have had: counted by the scheduler, not sampled."""
    threads = Path(f"/proc/{server.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def heartbeats(roster, report, settings):
    ours = next((c for c in roster.contestants if c.mode == "protocol"), None)
    if ours is None:
        print("heartbeats: protocol mode is not measured")
        return 2
    count, rounds = (2_000, 1) if settings.quick else (15_000, settings.rounds or 3)
    intervals = max(1, round((settings.seconds or (EVERY if settings.quick else 3 * EVERY)) / EVERY))
    pings = (str(BUILT / "pings"), "--serve", "{addr}", "--connections", str(count), "--every", str(EVERY))
    contestants = [
        Contestant(FLOOR, pings),
        Contestant(PACED, pings + ("--over", str(SPREAD))),
        Contestant(QUIET, ours.command + ("--idle-timeout", f"{FAR}s")),
        Contestant(OURS, ours.command + ("--idle-timeout", f"{FAR}s", "--heartbeat", f"{EVERY}s")),
    ]

    def measure(contestant):
        with Server(contestant) as server, Peers(server, count) as peers:
            # A window of whole intervals, which begins between two rounds of pings.
            time.sleep(EVERY / 2)
            began, spent, had = time.monotonic(), cpu(server), peers.pings()
            time.sleep(intervals * EVERY)
            spent, had = cpu(server) - spent, peers.pings() - had
            return {"seconds": time.monotonic() - began, "cpu": spent, "pings": had}

    outcome = interleave(contestants, rounds, measure)

    def share(measurement):
        return 100 * measurement["cpu"] / measurement["seconds"]

    def each(measurement):
        return 1e6 * measurement["cpu"] / measurement["pings"] if measurement["pings"] else None

    def beyond(floor):
        """Per cent of a CPU more than the floor takes for as many pings."""

        def values(name):
            if floor not in outcome.rounds:
                return "-"
            pairs = zip(outcome.rounds[name], outcome.rounds[floor])
            return spread([share(m) - share(f) * (m["pings"] / m["seconds"]) / (f["pings"] / f["seconds"]) for m, f in pairs], "{:.2f} %")

        return lambda name: values(name) if name == OURS else ""

    columns = [
        ("pings/s", lambda name: spread(outcome.values(name, lambda m: m["pings"] / m["seconds"]))),
        ("CPU, user and system", lambda name: spread(outcome.values(name, share), "{:.2f} %")),
        ("a ping", lambda name: spread(outcome.values(name, each), "{:.2f} us")),
        ("beyond the pings, one after the other", beyond(FLOOR)),
        ("beyond the pings, spread", beyond(PACED)),
    ]
    report.section("heartbeats", f"{count:,} idle connections, each pinged every {EVERY} s: share of one CPU", columns, outcome)
    return 0
