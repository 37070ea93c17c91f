//! The pictures, as SVG: latency by percentile, and throughput over time.
//!
//! Colours are those of a light page; `page.css` maps each of them to its partner on a dark one.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use crate::load::{STEP, Timeline};
use crate::measure::Cell;
use crate::report::grouped;

const SIZE: (u32, u32) = (560, 320);
const INK: RGBColor = RGBColor(0x3A, 0x3F, 0x47);
const GRID: RGBColor = RGBColor(0xE1, 0xE4, 0xE8);
/// One for each mode of the server, in the order of the table.
const SERIES: [RGBColor; 4] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x8A, 0x63),
    RGBColor(0x8A, 0x4F, 0xA8),
];

pub struct Picture {
    pub svg: String,
    /// Why some of its curves are drawn as points.
    pub few_points: Option<&'static str>,
}

/// A curve of so few points would show a course that was not measured.
const FEW: usize = 3;

/// A line of the picture. `series` is an index into `SERIES`.
struct Line {
    series: usize,
    points: Vec<(f64, f64)>,
}

struct Axis {
    low: f64,
    high: f64,
    marks: Vec<f64>,
    title: &'static str,
    label: fn(f64) -> String,
}

/// Plotters asks an axis where a value goes, which values are marked, and what is written there.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// Latency by percentile, paced. The x axis is logarithmic in the share of slower messages, the y axis in time. Each
/// cell comes with its series.
pub fn latency(cells: &[(usize, &Cell)]) -> Result<Picture, String> {
    let lines: Vec<_> = cells
        .iter()
        .map(|&(series, cell)| latency_line(series, cell))
        .collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.1).fold(low, f64::max);
    let (low, high) = (low - 0.08, high + 0.08);
    let x = Axis {
        low: 0.0,
        high: right,
        marks: (0..=right as u32).map(f64::from).collect(),
        title: "percentile of messages",
        label: |nines| format!("{} %", 100.0 - 100.0 / 10f64.powf(nines)),
    };
    let y = Axis {
        low,
        high,
        marks: one_two_five(low, high),
        title: "latency",
        label: |exponent| time(10f64.powf(exponent)),
    };
    let why = "Points and no curve: three messages or fewer were sent.";
    draw(x, y, &lines, why)
}

/// x: minus the logarithm of the share that is slower, 2 for 99 %. y: the logarithm of the microseconds.
fn latency_line(series: usize, cell: &Cell) -> Line {
    const STEPS_A_NINE: f64 = 20.0;
    let nines = (cell.paced.latencies.len() as f64).log10().max(0.1);
    let steps = (nines * STEPS_A_NINE).ceil() as u32;
    let point = |step| {
        let across = (f64::from(step) / STEPS_A_NINE).min(nines);
        let percentile = 100.0 - 100.0 / 10f64.powf(across);
        (across, cell.latency(percentile).max(0.1).log10())
    };
    // Each of a few messages is a point.
    let messages = cell.paced.latencies.len() as usize;
    let every = if messages <= FEW { steps.max(1) } else { 1 };
    Line {
        series,
        points: (0..=steps)
            .step_by(every as usize)
            .map(point)
            .take(messages)
            .collect(),
    }
}

/// Throughput over time: flat out, a gap, paced.
pub fn throughput(cells: &[(usize, &Cell)]) -> Result<Picture, String> {
    const GAP: f64 = 2.0 * STEP.as_secs_f64();
    let flat_out = cells
        .iter()
        .map(|&(series, cell)| (series, &cell.flat_out.timeline));
    let paced = cells
        .iter()
        .map(|&(series, cell)| (series, &cell.paced.timeline));
    let middle = GAP
        + flat_out
            .clone()
            .map(|(_, timeline)| timeline.seconds())
            .fold(0.0, f64::max);
    let right = middle
        + paced
            .clone()
            .map(|(_, timeline)| timeline.seconds())
            .fold(0.0, f64::max);
    let flat_out = flat_out.map(|(series, timeline)| rate_line(series, timeline, 0.0));
    let paced = paced.map(|(series, timeline)| rate_line(series, timeline, middle));
    let lines: Vec<_> = flat_out.chain(paced).collect();
    let points = lines.iter().flat_map(|line| &line.points);
    let high = points.map(|point| point.1).fold(1.0, f64::max) * 1.08;
    let x = Axis {
        low: 0.0,
        high: right,
        marks: evenly(right),
        title: "time: flat out, then paced at half the rate",
        label: |seconds| format!("{:.1} s", seconds),
    };
    let y = Axis {
        low: 0.0,
        high,
        marks: evenly(high),
        title: "messages/s",
        label: grouped,
    };
    let why = "Points and no curve: the run had time for three samples or fewer. A longer one (--seconds) has more.";
    draw(x, y, &lines, why)
}

fn rate_line(series: usize, timeline: &Timeline, start: f64) -> Line {
    let middle_of = |step: usize| start + (step as f64 + 0.5) * STEP.as_secs_f64();
    let points = timeline
        .rates()
        .enumerate()
        .map(|(step, rate)| (middle_of(step), rate));
    Line {
        series,
        points: points.collect(),
    }
}

fn draw(x: Axis, y: Axis, lines: &[Line], why: &'static str) -> Result<Picture, String> {
    let mut svg = String::new();
    draw_into(&mut svg, x, y, lines).map_err(|error| format!("drawing: {error}"))?;
    let few = lines.iter().any(|line| line.points.len() <= FEW);
    Ok(Picture {
        svg,
        few_points: few.then_some(why),
    })
}

fn draw_into(
    svg: &mut String,
    x: Axis,
    y: Axis,
    lines: &[Line],
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (x_title, y_title) = (x.title, y.title);
    let font = ("sans-serif", 14).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .margin_right(22)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(font.clone())
        .axis_desc_style(font)
        .x_desc(x_title)
        .y_desc(y_title)
        .draw()?;
    for line in lines {
        let style = SERIES[line.series % SERIES.len()].stroke_width(2);
        let few = line.points.len() <= FEW;
        let dots = line.points.len() < 40;
        if !few {
            chart.draw_series([PathElement::new(line.points.clone(), style)])?;
        }
        let dot = |&point| Circle::new(point, if few { 4 } else { 2 }, style.filled());
        chart.draw_series(line.points.iter().filter(|_| dots).map(dot))?;
    }
    root.present()
}

/// The logarithms of 1, 2, 5, 10 and so on that lie between two logarithms; tens alone where those are many.
fn one_two_five(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high - low > 3.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let decades = low.floor() as i32..=high.ceil() as i32;
    let all = decades.flat_map(|decade| {
        steps
            .iter()
            .map(move |step| f64::from(decade) + step.log10())
    });
    all.filter(|mark| (low..=high).contains(mark)).collect()
}

/// From zero, in four to ten steps of 1, 2 or 5.
fn evenly(high: f64) -> Vec<f64> {
    let decade = 10f64.powf((high / 4.0).log10().floor());
    let fits = |step: &f64| high / step >= 4.0;
    let step = [5.0, 2.0, 1.0]
        .map(|step| step * decade)
        .into_iter()
        .find(fits)
        .unwrap_or(decade);
    (0..=(high / step) as u32)
        .map(|mark| f64::from(mark) * step)
        .collect()
}

fn time(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{} µs", short(micros)),
        1e3..1e6 => format!("{} ms", short(micros / 1e3)),
        _ => format!("{} s", short(micros / 1e6)),
    }
}

/// Removes the rounding error of a mark's logarithm.
fn short(value: f64) -> String {
    format!("{}", (value * 10.0).round() / 10.0)
}
