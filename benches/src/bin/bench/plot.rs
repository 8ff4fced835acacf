//! The report, as plots.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::FontFamily;

use crate::contenders::{FLOOR, RING, TENURE};
use crate::figure::shown;
use crate::machine::Machine;
use crate::place::Place;
use crate::plan::{BETWEEN, QUEUED, Work};
use crate::records::{Of, Records};

const SIZE: (u32, u32) = (900, 560);
const COLOURS: [RGBColor; 7] = [
    RGBColor(120, 120, 120),
    RGBColor(60, 60, 60),
    RGBColor(0, 95, 175),
    RGBColor(215, 95, 0),
    RGBColor(0, 135, 95),
    RGBColor(175, 0, 95),
    RGBColor(135, 95, 0),
];

/// Draws what there are figures for, and says how many plots that are.
pub fn all(dir: &Path, machine: &Machine, records: &Records, work: &Work) -> Result<usize> {
    let mut plots = Vec::new();
    for place in Place::ALL {
        for waiters in BETWEEN {
            plots.push((format!("distribution-{waiters}-{}", place.id()), distribution(records, place, waiters)));
        }
        plots.push((format!("rate-{}", place.id()), rate(records, place)));
        plots.push((format!("queue-{}", place.id()), queue(records, work, place)));
    }
    plots.retain(|(_, plot)| plot.lines.iter().any(|line| line.name != FLOOR));
    for (name, plot) in &plots {
        let path = dir.join(format!("{name}.svg"));
        plot.draw(&path, machine).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    Ok(plots.len())
}

struct Plot {
    title: String,
    x: &'static str,
    y: &'static str,
    /// What the marks of the x axis say; their places are 0, 1, ..
    ticks: Vec<String>,
    lines: Vec<Line>,
    /// Where no line is.
    legend: SeriesLabelPosition,
}

struct Line {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

fn distribution(records: &Records, place: Place, waiters: usize) -> Plot {
    let quantiles = [
        ("min", "min_us"),
        ("50 %", "p50_us"),
        ("90 %", "p90_us"),
        ("99 %", "p99_us"),
        ("99.9 %", "p999_us"),
        ("max", "max_us"),
    ];
    let case = format!("handoff/{waiters}");
    let lines = lines(records, |contender| {
        let path = if contender == FLOOR { "delete_to_event" } else { "handoff" };
        let of = Of { case: &case, place, contender };
        quantiles.iter().map(|(_, leaf)| records.median(of, &format!("{path}.{leaf}"))).collect()
    });
    Plot {
        title: format!("Hand-off between processes, {waiters} sessions; {place}"),
        x: "percentile",
        y: "µs",
        ticks: quantiles.map(|(tick, _)| tick.to_owned()).into(),
        lines,
        legend: SeriesLabelPosition::UpperLeft,
    }
}

fn rate(records: &Records, place: Place) -> Plot {
    let lines = lines(records, |contender| {
        let rate = |waiters| {
            let case = format!("handoff/{waiters}");
            records.median(Of { case: &case, place, contender }, "handoffs_s")
        };
        BETWEEN.into_iter().map(rate).collect()
    });
    Plot {
        title: format!("Hand-offs a second between processes; {place}"),
        x: "sessions that contend",
        y: "hand-offs a second",
        ticks: BETWEEN.map(|waiters| waiters.to_string()).into(),
        lines,
        legend: SeriesLabelPosition::LowerRight,
    }
}

fn queue(records: &Records, work: &Work, place: Place) -> Plot {
    let lengths: Vec<_> =
        QUEUED.into_iter().filter(|length| work.case(&format!("queue/{length}/1")).is_some()).collect();
    let lines = lines(records, |contender| {
        let each = |length: &usize| {
            let case = format!("queue/{length}/1");
            let of = Of { case: &case, place, contender };
            // A peer that was measured with fewer has no figure for this length.
            let waiters = records.median(of, "waiters").filter(|&waiters| waiters == *length as f64)?;
            let up = records.median(of, "enqueue_watching_ms|enqueue_keys_ms")?;
            Some((up + records.median(of, "emptied_ms|drain_ms")?) / waiters * 1e3)
        };
        lengths.iter().map(each).collect()
    });
    Plot {
        title: format!("To queue up and drain, each waiter; {place}"),
        x: "waiters in the queue",
        y: "µs a waiter",
        ticks: lengths.iter().map(|&length| shown(length as f64)).collect(),
        lines,
        legend: SeriesLabelPosition::UpperLeft,
    }
}

/// A line for each contender that has figures.
fn lines(records: &Records, figures: impl Fn(&str) -> Vec<Option<f64>>) -> Vec<Line> {
    let mut lines = Vec::new();
    // So that each has one colour in all plots.
    let known = [FLOOR, RING, TENURE].map(str::to_owned).into_iter();
    let others = records.contenders().into_iter().filter(|name| ![FLOOR, RING, TENURE].contains(&name.as_str()));
    for (index, name) in known.chain(others).enumerate() {
        let figures = figures(&name).into_iter().enumerate();
        let points: Vec<_> =
            figures.filter_map(|(at, figure)| Some((at as f64, figure.filter(|&figure| figure > 0.0)?))).collect();
        if !points.is_empty() {
            lines.push(Line { name, colour: COLOURS[index % COLOURS.len()], points });
        }
    }
    lines
}

impl Plot {
    /// The y axis is logarithmic.
    fn draw(&self, path: &Path, machine: &Machine) -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let font = |size: i32| (FontFamily::SansSerif, size).into_font();
        let (chart_area, foot) = area.split_vertically(SIZE.1 - 22);
        foot.draw(&Text::new(machine.to_string(), (12, 2), font(11)))?;
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
        let (low, high) = (values().fold(f64::MAX, f64::min) / 1.5, values().fold(f64::MIN, f64::max) * 1.5);
        let last = self.ticks.len().saturating_sub(1) as f64;
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(&self.title, font(18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(-0.1..last + 0.1, (low..high).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_labels(self.ticks.len())
            .x_label_formatter(&|at| self.tick(*at))
            .y_label_formatter(&|value| shown(*value))
            .label_style(font(13))
            .draw()?;
        for line in &self.lines {
            let style = line.colour.stroke_width(2);
            let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?;
            drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .margin(10)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font(font(13))
            .draw()?;
        area.present()?;
        Ok(())
    }

    fn tick(&self, at: f64) -> String {
        let whole = (at - at.round()).abs() < 1e-6 && at >= 0.0;
        whole.then(|| self.ticks.get(at.round() as usize).cloned()).flatten().unwrap_or_default()
    }
}
