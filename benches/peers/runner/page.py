"""One self-contained HTML page: no script, nothing fetched."""

from html import escape
from pathlib import Path

from figures.contestants import BASELINE

from . import charts
from .markdown import ROUNDS, summary
from .results import SURE, compared, losses, told


def table(headings, rows, families=None, kind=""):
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    line = lambda row: "".join(f"<td>{escape(cell)}</td>" for cell in row)
    body = "".join(f'<tr class="{families.get(row[0], "") if families else ""}">{line(row)}</tr>' for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraph(text, kind=""):
    return f'<p class="{kind}">{escape(text)}</p>'


def losing(sections):
    parts = []
    for family, others in (("peer", "the best of the peers"), ("floor", "the better of the floors")):
        won, total = compared(sections, family)
        if not total:
            continue
        parts.append(paragraph(f"Against {others}: in {won} of {total} comparisons the best of ours is ahead or within 3 %."))
        lost = losses(sections, family)
        for sure, words in SURE.items():
            some = [loss.those(sure) for loss in lost]
            rows = [[loss.title, loss.metric.heading, f"{loss.winner} {loss.figure}", told(loss)] for loss in some if loss]
            if rows:
                parts.append(paragraph(f"{words}:") + table(["where", "what", "ahead", "of ours"], rows, kind="losses"))
    return "".join(parts)


def overview(sections):
    """Messages/s and latency over the number of connections."""
    small = [s for s in sections if s.name == "echo" and s.parameters["size"] == 64 and s.parameters["depth"] == 1]
    if not small:
        return ""
    metric = {metric.key: metric for metric in small[0].metrics}
    base = BASELINE if all(BASELINE in s.rounds for s in small) else None
    heading = f"messages/s, 64 B, over connections{f'; 1 is {base}' if base else ''}"
    return charts.lines(small, metric["rate"], heading, base) + charts.lines(small, metric["p99"], "p99 us, 64 B, over connections", logarithmic=True)


def section_html(section):
    rows = [[name] + [section.cell(name, metric) for metric in section.metrics] for name in section.rounds]
    parts = [f"<h2>{escape(section.title)}</h2>", paragraph(section.about)]
    parts += [charts.bars(section, metric) for metric in section.metrics if metric.chart]
    parts.append(table(["", *(metric.heading for metric in section.metrics)], rows, section.families))
    parts += [paragraph(note, "note") for note in section.notes]
    return "".join(parts)


def html(run):
    families = {name: family for section in run.sections for name, family in section.families.items()}
    colour = lambda family, name: f'<span style="border-color:var(--{family})">{name}</span>'
    key = f'<p class="key">{colour("ours", "ours")}{colour("peer", "peers")}{colour("floor", "floors")}</p>'
    parts = [
        "<h1>netpoller beside its peers</h1>",
        paragraph(run.machine, "machine"),
        paragraph(run.versions_line(), "machine"),
        *(paragraph(note, "note") for note in run.notes),
        *(paragraph(f"Left out: {what}", "note") for what in run.left_out),
        paragraph(f"{run.date}. {ROUNDS.format(run.rounds)} Whiskers and brackets go from the lowest round to the highest; one round has none."),
        key, overview(run.sections), table(*summary(run.sections), families=families),
        "<h2>Where we lose</h2>", losing(run.sections),
        *(section_html(section) for section in run.sections),
    ]
    css = (Path(__file__).parent / "page.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>netpoller beside its peers</title><style>{css}</style></head><body>{''.join(parts)}</body></html>\n"
    )
