"""What came out: medians, spreads, and where we lose."""

import statistics
from dataclasses import dataclass, field, replace

from figures.rounds import DISTURBED

MARGIN = 0.03  # less is a tie
SURE = {
    "clear": "Behind in every round, by more than 3 %",
    "once": "Behind in the one round there was, by more than 3 %",
    "unclear": "Behind by more than 3 %, but within the spread of the rounds",
}


@dataclass(frozen=True)
class Metric:
    key: str
    heading: str
    form: str = "{:,.0f}"
    better: str = ""  # "higher", "lower", or nothing to win
    chart: bool = False


def calm(measurement):
    """Others left the CPUs alone meanwhile."""
    return measurement.get("others", 0) < DISTURBED


@dataclass
class Section:
    """One scenario with one set of parameters."""

    name: str
    title: str
    metrics: list
    families: dict  # contestant -> floor, ours or peer
    rounds: dict  # contestant -> a measurement each round
    notes: list = field(default_factory=list)
    about: str = ""
    parameters: dict = field(default_factory=dict)

    def values(self, name, key):
        """Of the calm rounds when every contestant has one, else of all rounds of all: like is compared with like."""
        rounds = self.rounds.get(name, [])
        counted = rounds if self.disturbed() else [m for m in rounds if calm(m)]
        return [m[key] for m in counted if m.get(key) is not None]

    def disturbed(self):
        """Contestants without a calm round."""
        return [name for name, rounds in self.rounds.items() if not any(calm(m) for m in rounds)]

    def median(self, name, key):
        values = self.values(name, key)
        if not values:
            return None
        return statistics.median(values) if not isinstance(values[0], str) else values[0]

    def cell(self, name, metric, spread=True):
        """`median (lowest..highest)`"""
        values = self.values(name, metric.key)
        if not values:
            return "-"
        if isinstance(values[0], str):
            return values[0]
        text = metric.form.format(statistics.median(values))
        if spread and len(values) > 1:
            text += f" ({metric.form.format(min(values))}..{metric.form.format(max(values))})"
        return text

    def names(self, *families):
        return [name for name in self.rounds if self.families[name] in families]


@dataclass(frozen=True)
class Loss:
    title: str
    metric: Metric
    family: str
    winner: str
    figure: str  # the winner's
    ours: list  # (name, figure, how much worse, how sure: a key of SURE)

    def those(self, sure):
        """With only those of ours that are behind this surely; None when there are none."""
        some = [each for each in self.ours if each[3] == sure]
        return replace(self, ours=some) if some else None


def worse_by(metric, ours, theirs):
    """How much worse ours is: 0.1 is ten per cent; negative when it is better."""
    if metric.better == "higher":
        return theirs / ours - 1 if ours > 0 else 0
    return ours / theirs - 1 if theirs > 0 else 0


def how_sure(ours, theirs):
    if len(ours) == 1 or len(theirs) == 1:
        return "once"
    return "unclear" if min(ours) <= max(theirs) and min(theirs) <= max(ours) else "clear"


def losses_of(section, metric, family):
    """Where the best of a family is ahead of one of ours."""
    theirs = [(section.median(name, metric.key), name) for name in section.names(family) if section.values(name, metric.key)]
    if not theirs or not metric.better:
        return None
    best, winner = (max if metric.better == "higher" else min)(theirs)
    behind = []
    for name in section.names("ours"):
        figure = section.median(name, metric.key)
        by = worse_by(metric, figure, best) if figure is not None else 0
        if by > MARGIN:
            sure = how_sure(section.values(name, metric.key), section.values(winner, metric.key))
            behind.append((name, metric.form.format(figure), by, sure))
    if not behind:
        return None
    return Loss(section.title, metric, family, winner, metric.form.format(best), behind)


def losses(sections, family):
    """All that we lose to a family, the section's order kept."""
    found = (losses_of(section, metric, family) for section in sections for metric in section.metrics)
    return [loss for loss in found if loss]


def told(loss):
    """`reactor 80,000 (5 % behind), async 30,000 (2.7 x)`"""
    each = []
    for name, figure, by, _ in loss.ours:
        amount = f"{100 * by:.0f} % behind" if by < 1 else f"{by + 1:.1f} x"
        each.append(f"{name.removeprefix('ours: ')} {figure} ({amount})")
    return ", ".join(each)


def compared(sections, family):
    """How many comparisons there were, and how many of them our best won or tied: (won, all)."""
    won = total = 0
    for section in sections:
        for metric in section.metrics:
            ours = [section.median(name, metric.key) for name in section.names("ours")]
            theirs = [section.median(name, metric.key) for name in section.names(family)]
            ours, theirs = ([f for f in figures if f is not None] for figures in (ours, theirs))
            if not metric.better or not ours or not theirs:
                continue
            pick = max if metric.better == "higher" else min
            total += 1
            won += worse_by(metric, pick(ours), pick(theirs)) <= MARGIN
    return won, total
