//! What happens once for every sample on its way into a second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hdrhistogram::Histogram as HdrHistogram;
use isochrone_model::{
    entry::{ConsumerDelay, ReceiptPart, Sample},
    histogram::{Dense, Histogram},
    id::Epoch,
    time::Reference,
};

/// Samples of one topic-second at a high rate: also what one batch holds at the most.
const SAMPLES: u64 = 1_000;

/// Latencies from 100 us up with a long tail, the same in every run (a linear congruential sequence, Knuth's constants).
fn latencies() -> Vec<i64> {
    let mut state = 42_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 40) as i64 + 1;
        100_000 + (1 << 34) / uniform * 100
    };
    (0..SAMPLES).map(next).collect()
}

/// Up to a minute, at the three digits that ours have.
#[expect(clippy::expect_used, reason = "the bounds are constants")]
fn hdr() -> HdrHistogram<u64> {
    HdrHistogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that are valid")
}

fn recording(criterion: &mut Criterion) {
    let latencies = latencies();
    let mut group = criterion.benchmark_group("record 1,000 latencies");
    group.throughput(Throughput::Elements(SAMPLES));
    group.bench_function("sparse (a topic-second)", |bencher| {
        bencher.iter(|| {
            let mut histogram = Histogram::default();
            latencies.iter().for_each(|&value| histogram.record(value));
            black_box(histogram.count())
        });
    });
    let mut dense = Dense::default();
    group.bench_function("dense (a run's total)", |bencher| {
        bencher.iter(|| latencies.iter().for_each(|&value| dense.record(black_box(value))));
    });
    let mut other = hdr();
    group.bench_function("hdrhistogram", |bencher| {
        bencher.iter(|| {
            latencies
                .iter()
                .for_each(|&value| other.saturating_record(black_box(value) as u64))
        });
    });
    group.finish();
}

fn merging(criterion: &mut Criterion) {
    let latencies = latencies();
    let mut second = Histogram::default();
    latencies.iter().for_each(|&value| second.record(value));
    let mut other = hdr();
    latencies
        .iter()
        .for_each(|&value| other.saturating_record(value as u64));

    let mut group = criterion.benchmark_group("merge a topic-second");
    let mut dense = Dense::default();
    group.bench_function("into a run's total", |bencher| {
        bencher.iter(|| dense.merge(black_box(&second)))
    });
    let mut total = other.clone();
    group.bench_function("hdrhistogram", |bencher| {
        bencher.iter(|| total.add(black_box(&other)).is_ok())
    });
    group.finish();
}

fn packing(criterion: &mut Criterion) {
    let sample = |(sequence, &transit_ns): (usize, &i64)| {
        let due = Reference(1_700_000_000_000_000_000 + sequence as i64 * 1_000_000);
        let sent = due + 80_000;
        Sample {
            epoch: Epoch(3),
            sequence: sequence as u64,
            due,
            sent,
            received: sent + transit_ns,
            transit_ns,
            delay: ConsumerDelay::None,
            warmup: false,
        }
    };
    let part = ReceiptPart {
        samples: latencies().iter().enumerate().map(sample).collect(),
        ..ReceiptPart::default()
    };
    let packed = part.encode();
    let mut group = criterion.benchmark_group("1,000 samples of a topic");
    group.throughput(Throughput::Elements(SAMPLES));
    group.bench_function("pack", |bencher| bencher.iter(|| black_box(black_box(&part).encode())));
    group.bench_function("unpack", |bencher| {
        bencher.iter(|| black_box(ReceiptPart::decode(black_box(&packed)).is_ok()));
    });
    group.finish();
}

criterion_group!(benches, recording, merging, packing);
criterion_main!(benches);
