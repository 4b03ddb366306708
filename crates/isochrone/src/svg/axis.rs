//! From figures to places, and the figures worth naming. Pure.

use crate::text::{count, nanos};

use super::drawing::{Area, LEFT, RIGHT};

/// A figure on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Which.
    pub value: f64,
    /// What is written beside it; empty for a line alone.
    pub label: String,
}

/// Figures upwards in a panel.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The panel.
    pub area: Area,
    /// Lowest and highest figure, or their logarithms.
    from: f64,
    to: f64,
    logarithmic: bool,
    /// What to name.
    pub ticks: Vec<Tick>,
}

impl Scale {
    /// From zero.
    pub fn linear(area: Area, highest: f64) -> Scale {
        let step = nice_step(highest.max(1.0) / (area.height / 32.0).max(2.0)).max(1.0);
        let steps = (highest.max(1.0) / step).ceil() as u32;
        let ticks = (0..=steps).map(|n| f64::from(n) * step).map(|value| Tick {
            value,
            label: count(value as u64),
        });
        Scale {
            area,
            from: 0.0,
            to: f64::from(steps) * step,
            logarithmic: false,
            ticks: ticks.collect(),
        }
    }

    /// Nanoseconds, from one of 1, 2, 5, 10… to another. What lies below the lowest is drawn at the edge.
    pub fn logarithmic(area: Area, lowest: i64, highest: i64) -> Scale {
        let (lowest, highest) = (lowest.max(1), highest.max(lowest).max(1));
        let all = || (0..19).flat_map(|power| [1, 2, 5].map(|digit| digit as f64 * 10_f64.powi(power)));
        let from = all().take_while(|&step| step <= lowest as f64).last().unwrap_or(1.0);
        let to = all()
            .find(|&step| step >= highest as f64 && step > from)
            .unwrap_or(1e19);
        let roomy = (to / from).log10() * 60.0 < area.height;
        let ticks = all().filter(|step| (from..=to).contains(step)).map(|value| {
            let is_power = value.log10().fract() == 0.0;
            let label = if roomy || is_power {
                figure(value)
            } else {
                String::new()
            };
            Tick { value, label }
        });
        Scale {
            area,
            from: from.log10(),
            to: to.log10(),
            logarithmic: true,
            ticks: ticks.collect(),
        }
    }

    /// Where a figure lies.
    pub fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.max(1.0).log10()
        } else {
            value
        };
        let share = (value.clamp(self.from, self.to) - self.from) / (self.to - self.from);
        self.area.y + self.area.height * (1.0 - share)
    }
}

/// Seconds to the right, the same in all panels.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    from: i64,
    to: i64,
}

impl Time {
    /// Between two seconds.
    pub fn new(from: i64, to: i64) -> Time {
        Time {
            from,
            to: to.max(from.saturating_add(1)),
        }
    }

    /// The first second.
    pub fn begin(&self) -> i64 {
        self.from
    }

    /// Where a second begins.
    pub fn x(&self, second: i64) -> f64 {
        LEFT + (RIGHT - LEFT) * second.saturating_sub(self.from) as f64 / self.to.saturating_sub(self.from) as f64
    }

    /// Where the middle of a stretch lies.
    pub fn middle(&self, second: i64, width: i64) -> f64 {
        f64::midpoint(self.x(second), self.x(second.saturating_add(width)))
    }

    /// Seconds since the beginning, about a dozen.
    pub fn ticks(&self) -> Vec<(i64, String)> {
        const STEPS: [i64; 15] = [
            1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400,
        ];
        let length = self.to.saturating_sub(self.from);
        let mut step = STEPS.into_iter().find(|step| length / step <= 12).unwrap_or(86_400);
        while length / step > 12 {
            step *= 10;
        }
        let label = |second: i64| match step {
            step if step % 3_600 == 0 => format!("{} h", second / 3_600),
            step if step % 60 == 0 => format!("{} min", second / 60),
            _ => format!("{second} s"),
        };
        (0..=length / step)
            .map(|n| (self.from + n * step, label(n * step)))
            .collect()
    }
}

/// A round figure with its unit: `50 us`, not `50.0 us`.
fn figure(ns: f64) -> String {
    let text = nanos(ns);
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    };
    format!("{number} {unit}")
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= least * 0.999);
    step.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area {
        x: 0.0,
        y: 10.0,
        width: 100.0,
        height: 200.0,
    };

    fn labels(scale: &Scale) -> Vec<&str> {
        scale
            .ticks
            .iter()
            .map(|tick| tick.label.as_str())
            .filter(|label| !label.is_empty())
            .collect()
    }

    /// Units change where a reader expects it; powers of ten alone are named when there are many.
    #[test]
    fn times_are_named_with_their_unit() {
        let wide = Scale::logarithmic(AREA, 120_000, 2_300_000_000);
        assert_eq!(labels(&wide), ["100 us", "1 ms", "10 ms", "100 ms", "1 s"]);
        let narrow = Scale::logarithmic(AREA, 52_000, 400_000);
        assert_eq!(labels(&narrow), ["50 us", "100 us", "200 us", "500 us"]);
        assert_eq!((wide.y(1.0), wide.y(5e9)), (210.0, 10.0));
        assert_eq!(labels(&Scale::logarithmic(AREA, -5, 0)), ["1 ns", "2 ns"]);
    }

    #[test]
    fn rates_begin_at_zero() {
        assert_eq!(
            labels(&Scale::linear(AREA, 11_998.0)),
            ["0", "2,000", "4,000", "6,000", "8,000", "10,000", "12,000"]
        );
        assert_eq!(labels(&Scale::linear(AREA, 0.0)), ["0", "1"]);
    }

    #[test]
    fn seconds_become_minutes_and_hours() {
        let last = |length: i64| {
            Time::new(7, 7 + length)
                .ticks()
                .pop()
                .map(|(at, label)| (at - 7, label))
        };
        assert_eq!(last(11), Some((11, "11 s".to_owned())));
        assert_eq!(last(300), Some((300, "300 s".to_owned())));
        assert_eq!(last(700), Some((660, "11 min".to_owned())));
        assert_eq!(last(86_400), Some((86_400, "24 h".to_owned())));
    }
}
