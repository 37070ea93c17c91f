"""Bars with whiskers and lines with dots, as SVG: text in, text out. Colours are the page's CSS."""

import math
import statistics
from html import escape

WIDTH, LABEL, VALUE, BAR, GAP = 760, 210, 110, 18, 6


def figure(caption, height, parts):
    picture = f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(caption)}</figcaption>{picture}</figure>"


def bars(section, metric):
    """A bar for each contestant, best first; the whisker goes from the lowest round to the highest."""
    figures = [(statistics.median(values), values, name) for name in section.rounds if (values := section.values(name, metric.key))]
    if not figures:
        return ""
    figures.sort(key=lambda each: each[0], reverse=metric.better == "higher")
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
    return figure(metric.heading + better, height, parts)


def apart(places, gap, bottom):
    """The same places in order, at least `gap` apart, none below `bottom`."""
    spread = []
    for place in places:
        spread.append(max(place, spread[-1] + gap) if spread else place)
    for index in range(len(spread) - 1, -1, -1):
        spread[index] = min(spread[index], bottom)
        bottom = spread[index] - gap
    return spread


def lines(sections, metric, heading, base=None, logarithmic=False):
    """A line for each contestant over the number of connections; with `base` as a ratio to that one."""
    points, families = {}, {}  # name -> [(connections, figure)]
    for section in sections:
        families.update(section.families)
        for name in section.rounds:
            median = section.median(name, metric.key)
            under = section.median(base, metric.key) if base else 1
            if median and under:
                points.setdefault(name, []).append((section.parameters["connections"], median / under))
    xs = sorted({x for line in points.values() for x, _ in line})
    if len(xs) < 2:
        return ""
    height, left, right = 360, 70, 190
    figures = [y for line in points.values() for _, y in line]
    scale = math.log if logarithmic else lambda y: y
    low, high = scale(min(figures)) if logarithmic else 0, scale(max(figures) * 1.02)
    span_x, span_y = math.log(xs[-1] / xs[0]), (high - low) or 1
    at_x = lambda x: left + (WIDTH - left - right) * math.log(x / xs[0]) / span_x
    at_y = lambda y: height - 30 - (height - 40) * (scale(y) - low) / span_y

    parts = [f'<path class="axis" d="M{left} {height - 30}H{WIDTH - right}"/>']
    parts += [f'<text class="tick" x="{at_x(x):.1f}" y="{height - 10}">{x:,}</text>' for x in xs]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = low + span_y * share
        y = math.exp(y) if logarithmic else y
        label = f"{y:,.2f}" if base else f"{y:,.0f}"
        parts.append(f'<text class="name" x="{left - 8}" y="{at_y(y) + 4:.1f}">{label}</text>')
    order = sorted(points, key=lambda name: -points[name][-1][1])
    labels = apart([at_y(points[name][-1][1]) for name in order], 15, height - 30)
    hues = {name: f"hsl({index * 360 / len(points):.0f} 60% 45%)" for index, name in enumerate(points)}
    for name, label in zip(order, labels):
        line, family, colour = points[name], families[name], hues[name]
        path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in line)
        parts.append(f'<path class="line {family}" style="stroke:{colour}" d="M{path}"><title>{escape(name)}</title></path>')
        parts.append(f'<path style="stroke:{colour}" d="M{at_x(line[-1][0]) + 2:.1f} {at_y(line[-1][1]):.1f}L{WIDTH - right + 14} {label:.1f}"/>')
        parts.append(f'<text class="end {family}" style="fill:{colour}" x="{WIDTH - right + 18}" y="{label + 4:.1f}">{escape(name)}</text>')
    scaled = ", logarithmic" if logarithmic else ""
    return figure(heading + scaled, height, parts)
