//! Six curves over time, one below the other.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::Sample;

type Curve = (&'static str, fn(&Sample) -> f64);

const CURVES: [Curve; 6] = [
    ("live heap at rest, KiB", |sample| sample.heap),
    ("the most that the heap ever held, MiB", |sample| {
        sample.peak
    }),
    ("resident memory at rest, MiB", |sample| sample.resident),
    ("descriptors at rest", |sample| sample.descriptors),
    ("wake-ups in 0.7 s of rest", |sample| sample.wake_ups),
    ("p99 under load, ms", |sample| sample.p99),
];

pub fn draw(path: &Path, samples: &[Sample]) -> Result<(), Box<dyn Error>> {
    let page = SVGBackend::new(path, (900, 1300)).into_drawing_area();
    page.fill(&WHITE)?;
    let end = samples
        .iter()
        .fold(1.0, |end: f64, sample| end.max(sample.seconds));
    for (area, (name, of)) in page.split_evenly((CURVES.len(), 1)).iter().zip(CURVES) {
        let most = samples.iter().map(of).fold(1.0, f64::max) * 1.2;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .caption(name, ("sans-serif", 16))
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..end, 0.0..most)?;
        chart.configure_mesh().disable_x_mesh().draw()?;
        let points = samples.iter().map(|sample| (sample.seconds, of(sample)));
        chart.draw_series(LineSeries::new(points, &BLUE))?;
    }
    page.present()?;
    Ok(())
}
