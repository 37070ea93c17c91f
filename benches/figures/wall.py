"""Figures by the clock: throughput, firehose, churn, spin."""

import resource

from .contestants import BASELINE, DRAIN, EDGE
from .process import Server, run_load
from .rounds import interleave, spread


def rate(m):
    return m["messages_per_second"]


def latency(quantile):
    return lambda m: m["latency_us"][quantile]


def loaded(options, seconds, warmup):
    """A measurement: a fresh server, one load."""

    def measure(contestant):
        with Server(contestant) as server:
            return run_load(server, *options, "--seconds", seconds, "--warmup", warmup, within=seconds + warmup)

    return measure


def column(outcome, heading, key, form="{:,.0f}"):
    return heading, lambda name: spread(outcome.values(name, key), form)


def against_c(outcome, key=rate):
    return f"x {BASELINE}", lambda name: spread(outcome.ratios(name, key, BASELINE), "{:.2f}")


def cpu_each(outcome, kind):
    """CPU microseconds of the server per message, over all rounds: a round alone has too few samples."""

    def value(name):
        spent = sum(m["server_cpu"][kind] for m in outcome.rounds[name])
        return 1e6 * spent / max(1, sum(m["messages"] for m in outcome.rounds[name]))

    return value


def cpu_columns(outcome):
    user, system = cpu_each(outcome, "user"), cpu_each(outcome, "system")

    def user_ratio(name):
        floor = user(BASELINE) if BASELINE in outcome.rounds else 0
        return f"{user(name) / floor:.2f}" if floor else "-"

    return [
        ("user us each", lambda name: f"{user(name):.3f}"),
        (f"user x {BASELINE}", user_ratio),
        ("system us each", lambda name: f"{system(name):.2f}"),
        ("load busy", lambda name: spread(outcome.values(name, lambda m: m["load_busy"]), "{:.0%}")),
    ]


def timing(settings, seconds, quick_seconds):
    """(rounds, seconds, warm-up)"""
    if settings.quick:
        return settings.rounds or 2, settings.seconds or quick_seconds, 0.3
    return settings.rounds or 5, settings.seconds or seconds, 1


def throughput(roster, report, settings):
    rounds, seconds, warmup = timing(settings, 4, 1)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
    for connections in (1, 50) if settings.quick else (1, 50, 1_000, 15_000):
        if connections > limit:
            print(f"\nthroughput: {connections} connections are left out: the descriptor limit leaves {limit}")
            continue
        outcome = interleave(roster.plain(), rounds, loaded(["--connections", connections], seconds, warmup))
        columns = [column(outcome, "messages/s", rate), against_c(outcome)]
        columns += [column(outcome, f"{q} us", latency(q)) for q in ("p50", "p99")] + cpu_columns(outcome)
        report.section("throughput", f"Throughput: {connections:,} connections, 64 bytes, one in flight on each", columns, outcome)
    return 0


def firehose(roster, report, settings):
    rounds, seconds, warmup = timing(settings, 5, 1)
    for firehoses in (1, 8):
        options = ["--quiet", 1_000, "--quiet-rate", 2_000, "--firehoses", firehoses, "--firehose-write", 65_536]
        outcome = interleave(roster.plain(without=()), rounds, loaded(options, seconds, warmup))
        columns = [column(outcome, f"{q} us", latency(q)) for q in ("p50", "p99", "p99.9")]
        columns.append(column(outcome, "firehose MB/s", lambda m: m["firehose_mb_per_second"]))
        columns.append(column(outcome, "the load late, p99 us", lambda m: m["send_lag_p99_us"]))
        title = f"1,000 quiet connections, 2,000 messages/s in all, beside {firehoses} firehose{'s' * (firehoses > 1)} of 64 KiB writes"
        report.section("firehose", title, columns, outcome)
    return 0


def churn(roster, report, settings):
    rounds, seconds, warmup = timing(settings, 4, 1)
    outcome = interleave(roster.plain(), rounds, loaded(["--churn", "--connections", 50], seconds, warmup))
    columns = [column(outcome, "connections/s", rate), against_c(outcome), column(outcome, "p99 us", latency("p99"))]
    report.section("churn", "Connect, one echo, close; 50 at once", columns + cpu_columns(outcome), outcome)
    return 0


def spin(roster, report, settings):
    """Ours with --spin against C that blocks; with a load that sleeps while it waits, and with one that does not."""
    rounds, seconds, warmup = timing(settings, 4, 1)
    contestants = [c.flagged(["--spin", "50us"], "spin") if c.mode else c for c in roster.plain(without=(EDGE, DRAIN))]
    for options, what in (([], "a load that sleeps while it waits"), (["--spin"], "a load that never sleeps")):
        outcome = interleave(contestants, rounds, loaded(["--connections", 1, *options], seconds, warmup))
        columns = [column(outcome, "messages/s", rate), against_c(outcome)]
        columns += [column(outcome, f"{q} us", latency(q), "{:.1f}") for q in ("p50", "p99")]
        report.section("spin", f"One connection, one in flight, {what}", columns, outcome)
    return 0
