//! What happens once for every message sent and received.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isochrone_model::{
    id::{Domain, Epoch},
    stamp::{self, Stamp},
    time::{Monotonic, Reference},
};

const PAYLOADS: [usize; 3] = [128, 1024, 65_536];

fn stamp() -> Stamp {
    Stamp {
        domain: Domain(7),
        epoch: Epoch(0x0123_4567_89ab_cdef),
        sequence: 41,
        warmup: false,
        due: Reference(1_700_000_000_000_000_000),
        sent: Reference(1_700_000_000_000_050_000),
        sent_monotonic: Monotonic(1_000_050_000),
    }
}

/// A JSON object with the stamp as its last field, which is the longest way to it.
fn payload(size: usize) -> Vec<u8> {
    let stamp = stamp().to_text();
    let frame = r#"{"pad":"","isochrone":""}"#.len();
    let pad = "x".repeat(size.saturating_sub(stamp.len() + frame));
    format!(r#"{{"pad":"{pad}","isochrone":"{stamp}"}}"#).into_bytes()
}

fn sending(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stamp");
    let mut text = vec![0; stamp().to_text().len()];
    group.bench_function("write as text", |bencher| {
        bencher.iter(|| black_box(stamp()).write_text(black_box(&mut text)));
    });
    group.bench_function("encode", |bencher| {
        bencher.iter(|| black_box(black_box(stamp()).encode()))
    });
    group.finish();
}

fn receiving(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payload");
    for size in PAYLOADS {
        let payload = payload(size);
        let mut copy = Vec::with_capacity(payload.len());
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_with_input(
            BenchmarkId::new("find the stamp", size),
            &payload,
            |bencher, payload| {
                bencher.iter(|| black_box(stamp::find(black_box(payload))));
            },
        );
        group.bench_with_input(BenchmarkId::new("copy", size), &payload, |bencher, payload| {
            bencher.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(payload));
                black_box(copy.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sending, receiving);
criterion_main!(benches);
