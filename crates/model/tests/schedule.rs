//! Schedules are known in advance, in order, complete, and as random as they say.

use std::time::Duration;

use isochrone_model::{
    rate::Rate,
    schedule::{Schedule, ScheduleKind, ScheduleSpec, Slot},
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn spec(rate: f64, kind: ScheduleKind, seconds: u64) -> ScheduleSpec {
    ScheduleSpec {
        rate: Rate::PerSecond(rate),
        kind,
        ramp: Duration::ZERO,
        warmup: Duration::ZERO,
        duration: Some(Duration::from_secs(seconds)),
        count: None,
    }
}

fn times(spec: &ScheduleSpec, seed: u64, index: u32, devices: u32) -> Vec<u64> {
    Schedule::new(spec, seed, index, devices)
        .map(|slot| slot.at_ns)
        .collect()
}

fn kind() -> impl Strategy<Value = ScheduleKind> {
    prop_oneof![
        Just(ScheduleKind::Constant),
        (0.0..=1.0).prop_map(ScheduleKind::Jitter),
        Just(ScheduleKind::Poisson),
        (1..20_u32, 1_000_000..3_000_000_000_u64)
            .prop_map(|(size, ns)| ScheduleKind::Burst(size, Duration::from_nanos(ns))),
    ]
}

prop_compose! {
    fn any_spec()(
        kind in kind(),
        rate in 0.1..2_000.0_f64,
        ramp in 0..3_000_u64,
        warmup in 0..3_000_u64,
        duration in prop::option::of(0..5_000_u64),
        count in prop::option::of(0..3_000_u64),
    ) -> ScheduleSpec {
        ScheduleSpec {
            rate: Rate::PerSecond(rate),
            kind,
            ramp: Duration::from_millis(ramp),
            warmup: Duration::from_millis(warmup),
            duration: duration.map(Duration::from_millis),
            count,
        }
    }
}

proptest! {
    /// Same seed, same slots; in order of time; within count and duration; flagged in ramp and warm-up and nowhere else.
    #[test]
    fn in_order_and_bounded(spec in any_spec(), seed: u64, devices in 1..50_u32, index: prop::sample::Index) {
        let index = index.index(devices as usize) as u32;
        let slots: Vec<Slot> = Schedule::new(&spec, seed, index, devices).take(5_000).collect();
        let again: Vec<Slot> = Schedule::new(&spec, seed, index, devices).take(5_000).collect();
        prop_assert_eq!(&slots, &again);
        prop_assert!(slots.is_sorted_by_key(|slot| slot.at_ns));
        prop_assert!(spec.count.is_none_or(|count| slots.len() as u64 <= count));
        let flagged = spec.flagged().as_nanos() as u64;
        for slot in &slots {
            prop_assert_eq!(slot.warmup, slot.at_ns < flagged);
            prop_assert!(spec.duration.is_none_or(|duration| u128::from(slot.at_ns) < duration.as_nanos()));
        }
        if spec.duration.is_none() {
            prop_assert_eq!(slots.len() as u64, spec.count.unwrap_or(5_000).min(5_000));
        }
    }

    /// A constant rate has exactly rate × duration slots on every device, where that is whole.
    #[test]
    fn constant_is_complete(rate in 1..3_000_u32, seconds in 1..20_u64, devices in 1..300_u32, index: prop::sample::Index) {
        let index = index.index(devices as usize) as u32;
        let spec = spec(f64::from(rate), ScheduleKind::Constant, seconds);
        prop_assert_eq!(Schedule::new(&spec, 1, index, devices).count() as u64, u64::from(rate) * seconds);
    }

    /// The same with any jitter: each message stays within its own interval.
    #[test]
    fn jitter_is_complete(rate in 1..3_000_u32, share in 0.0..=1.0_f64, devices in 1..300_u32, index: prop::sample::Index) {
        let index = index.index(devices as usize) as u32;
        let spec = spec(f64::from(rate), ScheduleKind::Jitter(share), 3);
        let times = times(&spec, 9, index, devices);
        prop_assert_eq!(times.len() as u64, u64::from(rate) * 3);
        let interval = 1e9 / f64::from(rate);
        for pair in times.windows(2) {
            let deviation = ((pair[1] - pair[0]) as f64 - interval).abs();
            prop_assert!(deviation <= interval * share + 2.0);
        }
    }

    /// The k-th message of a ramp is due when the integral of the rate is k.
    #[test]
    fn ramp_inverts_the_integral(rate in 10.0..2_000.0_f64, ramp in 1..10_u64, index in 0..10_u32) {
        let spec = ScheduleSpec { ramp: Duration::from_secs(ramp), ..spec(rate, ScheduleKind::Constant, 15) };
        let ramp = ramp as f64;
        for (k, at_ns) in times(&spec, 0, index, 10).into_iter().enumerate() {
            let t = at_ns as f64 / 1e9;
            let integral = if t < ramp { rate * t * t / (2.0 * ramp) } else { rate * (t - ramp / 2.0) };
            let expected = k as f64 + f64::from(index) / 10.0;
            prop_assert!((integral - expected).abs() < 1e-4, "{} for {}", integral, expected);
        }
    }
}

#[test]
fn ten_seconds_of_a_thousand() {
    let spec = spec(1_000.0, ScheduleKind::Constant, 10);
    for index in 0..200 {
        let times = times(&spec, 0, index, 200);
        assert_eq!(times.len(), 10_000);
        assert!(
            times
                .windows(2)
                .all(|pair| (999_999..=1_000_001).contains(&(pair[1] - pair[0])))
        );
        assert_eq!(times[0], u64::from(index) * 5_000, "staggered evenly over the interval");
    }
}

#[test]
fn a_ramp_holds_half() {
    let spec = ScheduleSpec {
        ramp: Duration::from_secs(4),
        ..spec(100.0, ScheduleKind::Constant, 10)
    };
    let slots: Vec<Slot> = Schedule::new(&spec, 0, 0, 1).collect();
    assert_eq!(
        slots.iter().filter(|slot| slot.warmup).count(),
        200,
        "100/s for 4 s, halved"
    );
    assert_eq!(slots.len(), 800);
}

#[test]
fn bursts() {
    let spec = spec(1.0, ScheduleKind::Burst(10, Duration::from_secs(1)), 10);
    let times = times(&spec, 0, 1, 4);
    assert_eq!(times.len(), 100);
    for (burst, chunk) in times.chunks(10).enumerate() {
        assert!(
            chunk.iter().all(|at| *at == burst as u64 * SECOND + SECOND / 4),
            "all at once, a quarter of a second in"
        );
    }
    assert_eq!(
        Schedule::new(
            &ScheduleSpec {
                count: Some(15),
                ..spec
            },
            0,
            0,
            1
        )
        .count(),
        15
    );
}

/// Exponential gaps: their mean and deviation are the interval; a fair share of each second is taken; devices differ.
#[test]
fn poisson() {
    let spec = spec(1_000.0, ScheduleKind::Poisson, 100);
    let gaps: Vec<f64> = times(&spec, 5, 0, 2)
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) as f64 / 1e6)
        .collect();
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!(
        (mean - 1.0).abs() < 0.02 && (deviation - 1.0).abs() < 0.03,
        "{mean} {deviation}"
    );
    let shorter = gaps.iter().filter(|gap| **gap < std::f64::consts::LN_2).count() as f64 / n;
    assert!((shorter - 0.5).abs() < 0.01, "the median is ln 2: {shorter}");
    assert_ne!(times(&spec, 5, 0, 2), times(&spec, 5, 1, 2));
    assert_ne!(times(&spec, 5, 0, 2), times(&spec, 6, 0, 2));
}

#[test]
fn flat_out_has_no_slots() {
    let spec = ScheduleSpec {
        rate: Rate::Max,
        ..spec(1.0, ScheduleKind::Constant, 10)
    };
    assert_eq!(Schedule::new(&spec, 0, 0, 1).next(), None);
    assert_eq!(spec.per_second(), None);
}

/// One of each of 100,000 devices is held in memory.
#[test]
fn small() {
    assert!(size_of::<Schedule>() <= 128, "{} bytes", size_of::<Schedule>());
}
