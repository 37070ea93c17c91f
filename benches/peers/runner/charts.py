"""Bars with whiskers and lines with dots, as SVG: text in, text out. Colours are the page's CSS."""

import math
import statistics
from html import escape

WIDTH, LABEL, VALUE, BAR, GAP = 760, 210, 110, 18, 6


def bars(section, metric):
    """A bar for each contestant, best first; the whisker goes from the lowest round to the highest."""
    figures = [(statistics.median(values), values, name) for name in section.rounds if (values := section.values(name, metric.key))]
    if not figures:
        return ""
    figures.sort(key=lambda figure: figure[0], reverse=metric.better == "higher")
    top = max(max(values) for _, values, _ in figures) or 1
    room = WIDTH - LABEL - VALUE
    at = lambda value: LABEL + room * value / top
    parts = []
    for index, (median, values, name) in enumerate(figures):
        y = index * (BAR + GAP)
        middle = y + BAR / 2
        parts.append(f'<text class="name" x="{LABEL - 8}" y="{middle + 4:.1f}">{escape(name)}</text>')
        parts.append(f'<rect class="{section.families[name]}" x="{LABEL}" y="{y}" width="{max(1, at(median) - LABEL):.1f}" height="{BAR}"/>')
        if len(values) > 1:
            low, high = at(min(values)), at(max(values))
            parts.append(f'<path class="whisker" d="M{low:.1f} {middle - 4}v8M{low:.1f} {middle}H{high:.1f}M{high:.1f} {middle - 4}v8"/>')
        end = at(max(values)) + 8
        parts.append(f'<text class="figure" x="{end:.1f}" y="{middle + 4:.1f}">{escape(metric.form.format(median))}</text>')
    height = len(figures) * (BAR + GAP)
    better = f", {metric.better} is better" if metric.better else ""
    title = f"<figcaption>{escape(metric.heading + better)}</figcaption>"
    return f'<figure>{title}<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg></figure>'


def lines(sections, metric, heading, base=None):
    """A line for each contestant over the number of connections; with `base` as a ratio to that one."""
    points = {}  # name -> [(connections, figure)]
    for section in sections:
        for name in section.rounds:
            figure = section.median(name, metric.key)
            under = section.median(base, metric.key) if base else 1
            if figure is not None and under:
                points.setdefault(name, []).append((section.parameters["connections"], figure / under, section.families[name]))
    xs = sorted({x for line in points.values() for x, _, _ in line})
    if len(xs) < 2:
        return ""
    height, left, right = 320, 60, 190
    top = max(y for line in points.values() for _, y, _ in line) * 1.05
    span = math.log(xs[-1] / xs[0])
    at_x = lambda x: left + (WIDTH - left - right) * math.log(x / xs[0]) / span
    at_y = lambda y: height - 30 - (height - 40) * y / top
    parts = [f'<path class="axis" d="M{left} {at_y(0)}H{WIDTH - right}"/>']
    parts += [f'<text class="tick" x="{at_x(x):.1f}" y="{height - 10}">{x:,}</text>' for x in xs]
    for share in (0.25, 0.5, 0.75, 1):
        y = top * share
        parts.append(f'<text class="name" x="{left - 8}" y="{at_y(y) + 4:.1f}">{y:,.2f}</text>' if base else f'<text class="name" x="{left - 8}" y="{at_y(y) + 4:.1f}">{y:,.0f}</text>')
    ends = []
    for name, line in sorted(points.items(), key=lambda item: -item[1][-1][1]):
        path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y, _ in line)
        parts.append(f'<path class="line {line[0][2]}" d="M{path}"><title>{escape(name)}</title></path>')
        label = max(at_y(line[-1][1]), ends[-1] + 14 if ends else 0)
        ends.append(label)
        parts.append(f'<text class="end" x="{WIDTH - right + 8}" y="{label + 4:.1f}">{escape(name)}</text>')
    return f'<figure><figcaption>{escape(heading)}</figcaption><svg viewBox="0 0 {WIDTH} {max(height, ends[-1] + 12):.0f}" role="img">{"".join(parts)}</svg></figure>'
