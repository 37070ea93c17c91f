"""The report to read in a terminal, and the README's table."""

import re

from .results import compared, losses, told

MARK = "<!-- peers -->"


def table(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def section_table(section):
    rows = [[name] + [section.cell(name, metric) for metric in section.metrics] for name in section.rounds]
    return table(["", *(metric.heading for metric in section.metrics)], rows)


def losses_text(sections):
    """Plainly: where a peer is ahead of one of ours, and what is left to the floors."""
    parts = []
    for family, whom in (("peer", "the best of the peers"), ("floor", "the better of the floors (C epoll, mio by hand), which do nothing but echo")):
        won, total = compared(sections, family)
        if not total:
            continue
        lost = losses(sections, family)
        parts.append(f"Against {whom}: in {won} of {total} comparisons the best of ours is ahead or within 3 %.")
        if lost:
            rows = [[loss.title, loss.metric.heading, f"{loss.winner} {loss.figure}", told(loss)] for loss in lost]
            parts.append("Behind by more than 3 %:\n\n" + table(["where", "what", "ahead", "of ours"], rows))
    return "\n\n".join(parts) or "Nothing was measured that could be compared."


def report(run):
    """The whole report; `run` has machine, versions, left_out, sections, notes."""
    parts = [f"# netpoller beside its peers\n\n{run.machine}\n\n{run.versions_line()}"]
    parts += run.notes
    if run.left_out:
        parts.append("Left out:\n" + "\n".join(f"- {name}: {why}" for name, why in run.left_out.items()))
    parts.append(f"Medians of {run.rounds} interleaved rounds, lowest..highest in brackets.")
    parts.append("## Where we lose\n\n" + losses_text(run.sections))
    for section in run.sections:
        parts.append(f"## {section.title}\n\n{section.about}\n\n{section_table(section)}")
        parts += section.notes
    return "\n\n".join(parts) + "\n"


def summary(sections):
    """One row a contestant, of the figures that matter most: (headings, rows), no more than were measured."""
    wanted = []
    for section in sections:
        asked = section.parameters
        if section.name == "echo" and (asked["size"], asked["depth"]) == (64, 1):
            wanted.append((f"messages/s, {asked['connections']:,} conn.", section, "rate"))
            if asked["connections"] == 1_000:
                wanted.append(("p99 us, 1,000 conn.", section, "p99"))
            if asked["connections"] == 50:
                wanted.append(("user us each", section, "user_us"))
        if section.name == "echo" and asked["size"] == 1 << 20 and asked["connections"] == 50 and asked["depth"] == 1:
            wanted.append(("MB/s, 1 MiB", section, "mb"))
        one = {"churn": ("connects/s", "rate"), "memory": ("bytes an idle conn.", "bytes"), "syscalls": ("calls each", "calls")}
        if section.name in one:
            heading, key = one[section.name]
            wanted.append((heading, section, key))
    names = list(dict.fromkeys(name for _, section, _ in wanted for name in section.rounds))
    cell = lambda section, name, key: section.cell(name, next(m for m in section.metrics if m.key == key), spread=False)
    rows = [[name] + [cell(section, name, key) for _, section, key in wanted] for name in names]
    return ["64 B, one in flight, unless it says otherwise", *(heading for heading, _, _ in wanted)], rows


def readme_text(run):
    parts = [table(*summary(run.sections))]
    parts.append(f"{run.machine}. {run.versions_line()} Medians of {run.rounds} interleaved rounds, {run.date}.")
    parts += run.notes
    if run.left_out:
        parts.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in run.left_out.items()) + ".")
    lines = []
    for family, whom in (("peer", "the best of the peers"), ("floor", "the floors")):
        won, total = compared(run.sections, family)
        if total:
            lines.append(f"Against {whom}, the best of ours is ahead or within 3 % in {won} of {total} comparisons.")
        lost = [loss for loss in losses(run.sections, family) if len(loss.ours) == len([1 for _ in loss.ours])]
        for loss in lost if family == "peer" else []:
            lines.append(f"- {loss.title}; {loss.metric.heading}: {loss.winner} {loss.figure}; {told(loss)}")
    parts.append("**Where we lose.** " + "\n".join(lines))
    return "\n\n".join(parts)


def fill_readme(path, run):
    """Puts the table between the markers. False when they are not there."""
    text = path.read_text()
    found = re.search(f"{MARK}\n(.*?){MARK}", text, re.S)
    if not found:
        return False
    path.write_text(text[: found.start(1)] + readme_text(run) + "\n" + text[found.end(1) :])
    return True
