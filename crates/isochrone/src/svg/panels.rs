//! The panels, one below the other on the same seconds: latency, rates, missing messages, verdicts.

use isochrone_model::{
    report::Report,
    time::{NANOS_PER_SECOND, Reference, Second},
    verdict::Reason,
    window::Step,
};

use super::{
    axis::{Scale, Time},
    drawing::{Anchor, Area, Drawing, FAINT, Face, GRID, HEIGHTS, LEFT, Pen, RIGHT},
    legend::Legend,
    points::{Point, Points},
};
use crate::{facts::utc, text::count};

const LATENCY_HEIGHT: f64 = 220.0;
const RATES_HEIGHT: f64 = 100.0;
const MISSING_HEIGHT: f64 = 56.0;
const VERDICT_HEIGHT: f64 = 18.0;

/// A curve of latencies.
struct Curve {
    class: &'static str,
    label: &'static str,
    pen: Pen,
    of: fn(&Step) -> Option<i64>,
}

/// In the order of the legend. Colours of palettes made to be told apart with any colour vision (M. Okabe and K. Ito; P. Tol);
/// width and dashes differ too.
const CURVES: [Curve; 5] = [
    Curve {
        class: "response-p50",
        label: "response p50",
        pen: Pen::new("#0072b2", 2.0),
        of: |step| step.response.percentile_if_supported(0.5),
    },
    Curve {
        class: "response-p99",
        label: "p99",
        pen: Pen::new("#d55e00", 2.0),
        of: |step| step.response.percentile_if_supported(0.99),
    },
    Curve {
        class: "response-p999",
        label: "p99.9",
        pen: Pen::new("#aa4499", 1.5),
        of: |step| step.response.percentile_if_supported(0.999),
    },
    Curve {
        class: "response-max",
        label: "max",
        pen: Pen::new("#8a8a8a", 1.0),
        of: |step| step.response.max(),
    },
    Curve {
        class: "transit-p99",
        label: "transit p99",
        pen: Pen {
            stroke: "#009e73",
            width: 1.5,
            dashes: "5 3",
        },
        of: |step| step.transit.percentile_if_supported(0.99),
    },
];

/// A rate.
struct Flow {
    class: &'static str,
    label: &'static str,
    pen: Pen,
    of: fn(&Point) -> u64,
}

const FLOWS: [Flow; 3] = [
    Flow {
        class: "scheduled",
        label: "scheduled",
        pen: Pen::new("#c4c4c4", 5.0),
        of: |point| point.scheduled,
    },
    Flow {
        class: "sent",
        label: "sent, by due second",
        pen: Pen::new("#0072b2", 2.0),
        of: |point| point.sent,
    },
    Flow {
        class: "received",
        label: "received",
        pen: Pen {
            stroke: "#d55e00",
            width: 2.0,
            dashes: "6 2",
        },
        of: |point| point.arrived,
    },
];

/// A kind of missing message.
struct Kind {
    name: &'static str,
    fill: &'static str,
    of: fn(&Point) -> u64,
}

/// Stacked from below: the first is what was lost at least, the first two what was lost at most.
const KINDS: [Kind; 4] = [
    Kind {
        name: "lost",
        fill: "#d55e00",
        of: |point| point.missing.lost,
    },
    Kind {
        name: "unrecorded",
        fill: "#e69f00",
        of: |point| point.missing.unrecorded,
    },
    Kind {
        name: "unheard",
        fill: "#56b4e9",
        of: |point| point.missing.unheard,
    },
    Kind {
        name: "unsent",
        fill: "#595959",
        of: |point| point.unsent,
    },
];

const WARMUP: &str = "#e3e3e3";

fn colour(reason: Reason) -> &'static str {
    match reason {
        Reason::Valid => "#66c2a5",
        Reason::AckLimited => "#88ccee",
        Reason::ClockUnsure => "#ddcc77",
        Reason::GeneratorLate => "#cc79a7",
        Reason::ConsumerLate => "#882255",
        Reason::Dropped => "#1a1a1a",
    }
}

/// See the module.
pub struct Panels {
    time: Time,
}

impl Panels {
    /// On the seconds of these points.
    pub fn new(points: &Points) -> Panels {
        let (from, to) = points.span();
        Panels {
            time: Time::new(from.0, to.0),
        }
    }

    /// Draws all below `top` and gives where they end.
    pub fn draw(&self, drawing: &mut Drawing, top: f64, report: &Report, points: &Points) -> f64 {
        let mut y = self.latency(drawing, top, points) + HEIGHTS.gap;
        y = self.rates(drawing, y, points) + HEIGHTS.gap;
        y = self.missing(drawing, y, points) + HEIGHTS.gap;
        y = self.verdicts(drawing, y, report, points);
        self.seconds(drawing, y, points)
    }

    fn latency(&self, drawing: &mut Drawing, top: f64, points: &Points) -> f64 {
        let area = panel(top, LATENCY_HEIGHT);
        let values = || {
            let steps = points.all.values().map(|point| &point.latency);
            steps.flat_map(|step| CURVES.iter().filter_map(|curve| (curve.of)(step)))
        };
        let mut legend = Legend::begin(drawing, top, "latency");
        let (lowest, highest) = (values().filter(|&ns| ns > 0).min(), values().max());
        let Some(highest) = highest else {
            let face = Face::plain(FAINT, Anchor::Middle);
            self.frame(drawing, &Scale::logarithmic(area, 1_000, 1_000_000));
            let middle = (f64::midpoint(LEFT, RIGHT), area.y + area.height / 2.0);
            drawing.text(middle.0, middle.1, face, "no latencies by second are known of this run");
            return area.y + area.height;
        };
        let scale = Scale::logarithmic(area, lowest.unwrap_or(1), highest);
        self.frame(drawing, &scale);
        // What matters most lies above, and what is dashed above all: the line below shows through.
        let [response @ .., transit] = &CURVES;
        for curve in response.iter().rev().chain([transit]) {
            self.curve(drawing, &scale, points, curve);
        }
        let mut all_known = true;
        for curve in &CURVES {
            let known = points.all.values().any(|point| (curve.of)(&point.latency).is_some());
            let none = if known { "" } else { " –" };
            legend.line(drawing, &format!("{}{none}", curve.label), curve.pen);
            all_known &= known;
        }
        if !all_known {
            legend.word(drawing, "(–: too few messages a second)");
        }
        area.y + area.height
    }

    /// Through the middles of seconds; broken where a second has none, a dot where it stands alone.
    fn curve(&self, drawing: &mut Drawing, scale: &Scale, points: &Points, curve: &Curve) {
        let mut path = String::new();
        for run in points.unbroken() {
            let values: Vec<_> = run
                .iter()
                .map(|(second, point)| ((curve.of)(&point.latency), self.time.middle(second.0, points.width)))
                .collect();
            for piece in values.split(|(value, _)| value.is_none()) {
                let places = piece.iter().filter_map(|&(value, x)| Some((x, scale.y(value? as f64))));
                let places: Vec<_> = places.collect();
                match places[..] {
                    [alone] => drawing.dot(curve.class, alone, curve.pen.stroke),
                    _ => extend(&mut path, &places),
                }
            }
        }
        drawing.path(curve.class, &path, curve.pen);
    }

    fn rates(&self, drawing: &mut Drawing, top: f64, points: &Points) -> f64 {
        let area = panel(top, RATES_HEIGHT);
        let rate = |point: &Point, flow: &Flow| (flow.of)(point) as f64 / points.width as f64;
        let rates = points
            .all
            .values()
            .flat_map(|point| FLOWS.iter().map(move |flow| rate(point, flow)));
        let scale = Scale::linear(area, rates.fold(0.0, f64::max));
        self.frame(drawing, &scale);
        let mut legend = Legend::begin(drawing, top, "messages a second");
        for flow in &FLOWS {
            let mut path = String::new();
            for run in points.unbroken() {
                // A rate holds for the whole second: steps, and nothing where nothing happened.
                let mut places = Vec::new();
                for (second, point) in &run {
                    let y = scale.y(rate(point, flow));
                    places.push((self.time.x(second.0), y));
                    places.push((self.time.x(second.0 + points.width), y));
                }
                if let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) {
                    places.insert(0, (first.0, scale.y(0.0)));
                    places.push((last.0, scale.y(0.0)));
                }
                extend(&mut path, &places);
            }
            drawing.path(flow.class, &path, flow.pen);
            legend.line(drawing, flow.label, flow.pen);
        }
        area.y + area.height
    }

    fn missing(&self, drawing: &mut Drawing, top: f64, points: &Points) -> f64 {
        let sum = |kind: &Kind| points.all.values().map(|point| (kind.of)(point)).sum::<u64>();
        let mut legend = Legend::begin(drawing, top, "missing messages");
        if KINDS.iter().all(|kind| sum(kind) == 0) {
            legend.word(drawing, "none: nothing lost, unrecorded, unheard or unsent");
            return top + HEIGHTS.legend;
        }
        let area = panel(top, MISSING_HEIGHT);
        let all = |point: &Point| KINDS.iter().map(|kind| (kind.of)(point)).sum::<u64>() as f64 / points.width as f64;
        let scale = Scale::linear(area, points.all.values().map(all).fold(0.0, f64::max));
        self.frame(drawing, &scale);
        for (second, point) in &points.all {
            let mut below = 0.0;
            for kind in KINDS.iter().filter(|kind| (kind.of)(point) > 0) {
                let number = (kind.of)(point);
                let above = below + number as f64 / points.width as f64;
                let bar = self.bar(*second, points.width, (scale.y(above), scale.y(below)));
                let meaning = format!("{}: {} {}", self.place(*second), count(number), kind.name);
                drawing.area(kind.name, bar, kind.fill, Some(&meaning));
                below = above;
            }
        }
        let lost = [sum(&KINDS[0]), sum(&KINDS[1])];
        for kind in KINDS.iter().filter(|kind| sum(kind) > 0) {
            let label = match (kind.name, lost) {
                ("lost", [lower, unrecorded]) if unrecorded > 0 => {
                    format!("lost {} … {}", count(lower), count(lower + unrecorded))
                }
                _ => format!("{} {}", kind.name, count(sum(kind))),
            };
            legend.area(drawing, &label, kind.fill);
        }
        area.y + area.height
    }

    fn verdicts(&self, drawing: &mut Drawing, top: f64, report: &Report, points: &Points) -> f64 {
        let area = panel(top, VERDICT_HEIGHT);
        for (second, point) in &points.all {
            let (class, fill, name) = match point.verdict {
                Some(reason) => (format!("verdict {}", reason.name()), colour(reason), reason.name()),
                None => ("warmup".to_owned(), WARMUP, "warm-up"),
            };
            let cell = self.bar(*second, points.width, (area.y, area.y + area.height));
            drawing.area(&class, cell, fill, Some(&format!("{}: {name}", self.place(*second))));
        }
        let mut legend = Legend::begin(drawing, top, "seconds");
        for reason in Reason::ALL {
            let number = report.seconds.get(reason.name()).copied().unwrap_or(0);
            if number > 0 {
                legend.area(drawing, &format!("{} {}", count(number), reason.name()), colour(reason));
            }
        }
        if points.all.values().any(|point| point.verdict.is_none()) {
            legend.area(drawing, "outside the figures (warm-up)", WARMUP);
        }
        area.y + area.height
    }

    /// The axis below all panels.
    fn seconds(&self, drawing: &mut Drawing, top: f64, points: &Points) -> f64 {
        let mut y = top + 16.0;
        for (second, label) in self.time.ticks() {
            let x = self.time.x(second);
            let anchor = if x > RIGHT - 20.0 { Anchor::End } else { Anchor::Middle };
            drawing.text(x, y, Face::plain(FAINT, anchor), &label);
        }
        y += HEIGHTS.line;
        let began = utc(Reference(points.span().0.0.saturating_mul(NANOS_PER_SECOND)));
        let wide = match points.width {
            1 => "each point is a second".to_owned(),
            width => format!("each point is {width} s"),
        };
        let text = format!("since {began} · {wide}; percentiles within 3 %, with ten messages beyond them at least");
        drawing.text(f64::midpoint(LEFT, RIGHT), y, Face::plain(FAINT, Anchor::Middle), &text);
        y
    }

    /// Lines and names of a panel's axes.
    fn frame(&self, drawing: &mut Drawing, scale: &Scale) {
        let area = scale.area;
        for (second, _) in self.time.ticks() {
            let x = self.time.x(second);
            drawing.line((x, area.y), (x, area.y + area.height), Pen::new(GRID, 0.5));
        }
        for tick in &scale.ticks {
            let y = scale.y(tick.value);
            let width = if tick.label.is_empty() { 0.5 } else { 1.0 };
            drawing.line((LEFT, y), (RIGHT, y), Pen::new(GRID, width));
            if !tick.label.is_empty() {
                drawing.text(LEFT - 8.0, y + 4.5, Face::plain(FAINT, Anchor::End), &tick.label);
            }
        }
    }

    fn bar(&self, second: Second, width: i64, (top, bottom): (f64, f64)) -> Area {
        let from = self.time.x(second.0);
        let whole = self.time.x(second.0 + width) - from;
        Area {
            x: from,
            y: top,
            // A hair between neighbours, where there is room for one.
            width: if whole > 4.0 { whole - 1.0 } else { whole },
            height: bottom - top,
        }
    }

    fn place(&self, second: Second) -> String {
        format!("{} s", second.0.saturating_sub(self.time.begin()))
    }
}

fn panel(top: f64, height: f64) -> Area {
    Area {
        x: LEFT,
        y: top + HEIGHTS.legend,
        width: RIGHT - LEFT,
        height,
    }
}

/// A further line through places.
fn extend(path: &mut String, places: &[(f64, f64)]) {
    for (number, (x, y)) in places.iter().enumerate() {
        path.push_str(&format!("{}{x:.1} {y:.1}", if number == 0 { "M" } else { "L" }));
    }
}
