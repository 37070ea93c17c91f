"""The report to read in a terminal, and the table of docs/peers.md."""

import re

from .results import SURE, compared, losses, told

MARK = "<!-- peers -->"
ROUNDS = "Medians of {} interleaved rounds. Disturbed rounds are left out if each server has an undisturbed one."


def table(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def section_table(section):
    rows = [[name] + [section.cell(name, metric) for metric in section.metrics] for name in section.rounds]
    return table(["", *(metric.heading for metric in section.metrics)], rows)


def losses_text(sections):
    """Plainly: where a peer is ahead of one of ours, and what is left to the floors."""
    parts = []
    for family, others in (("peer", "the best of the peers"), ("floor", "the better of the floors (C epoll, mio by hand), which do nothing but echo")):
        won, total = compared(sections, family)
        if not total:
            continue
        lost = losses(sections, family)
        parts.append(f"Against {others}: in {won} of {total} comparisons the best of ours is ahead or within 3 %.")
        for sure, words in SURE.items():
            some = [loss.those(sure) for loss in lost]
            rows = [[loss.title, loss.metric.heading, f"{loss.winner} {loss.figure}", told(loss)] for loss in some if loss]
            if rows:
                parts.append(f"{words}:\n\n" + table(["where", "what", "ahead", "of ours"], rows))
    return "\n\n".join(parts) or "Nothing was measured that could be compared."


def report(run):
    """The whole report; `run` has machine, versions, left_out, sections, notes."""
    parts = [f"# netpoller beside its peers\n\n{run.machine}\n\n{run.versions_line()}"]
    parts += run.notes
    if run.left_out:
        parts.append("Left out:\n" + "\n".join(f"- {what}" for what in run.left_out))
    parts.append(f"{ROUNDS.format(run.rounds)} In brackets lowest..highest, unless there was one round.")
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
    parts.append(f"{run.machine}. {run.versions_line()} {run.date}. {ROUNDS.format(run.rounds)}")
    parts += run.notes
    if run.left_out:
        parts.append("Left out: " + "; ".join(run.left_out) + ".")
    parts.append("**Where a peer wins** every round; for each, the better of our losing modes, and the peer. " + losses_brief(run.sections))
    return "\n\n".join(parts)


def losses_brief(sections):
    """Of each figure in which a peer is clearly ahead of one of ours: the better of ours, and the peer."""
    won, total = compared(sections, "peer")
    lines = [f"In {won} of {total} comparisons with the best of the peers the best of ours is ahead or within 3 %."]
    for clear in (loss.those("clear") for loss in losses(sections, "peer")):
        if clear:
            name, figure, _, _ = min(clear.ours, key=lambda ours: ours[2])
            title = clear.title.removeprefix("Echo: ").removesuffix(", 1 in flight on each")
            ours = f"{name.removeprefix('ours: ')} {figure}"
            lines.append(f"{title}: {clear.metric.heading} {ours}, {clear.winner} {clear.figure}.")
    return " ".join(lines)


def fill_document(path, run):
    """Puts the table between the markers. False when they are not there."""
    text = path.read_text()
    found = re.search(f"{MARK}\n(.*?){MARK}", text, re.S)
    if not found:
        return False
    path.write_text(text[: found.start(1)] + readme_text(run) + "\n" + text[found.end(1) :])
    return True
