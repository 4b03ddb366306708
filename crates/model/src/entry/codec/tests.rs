use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain},
    time::Second,
};

fn sample() -> impl Strategy<Value = Sample> {
    (
        0..4_u64,
        any::<u64>(),
        any::<i64>(),
        any::<i64>(),
        any::<i64>(),
        any::<i64>(),
        0..3_u8,
        any::<bool>(),
    )
        .prop_map(
            |(epoch, sequence, due, sent, received, transit_ns, delay, warmup)| Sample {
                epoch: Epoch(epoch << 60),
                sequence,
                due: Reference(due),
                sent: Reference(sent),
                received: Reference(received),
                transit_ns,
                delay: [ConsumerDelay::None, ConsumerDelay::Late, ConsumerDelay::Extreme][usize::from(delay)],
                warmup,
            },
        )
}

fn missing() -> impl Strategy<Value = Missing> {
    (
        0..9_u64,
        0..3_u8,
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        any::<i64>(),
    )
        .prop_map(|(epoch, kind, first, more, from, to)| Missing {
            epoch: Epoch(epoch << 60),
            kind: [MissingKind::Unrecorded, MissingKind::Unheard, MissingKind::Lost][usize::from(kind)],
            range: SeqRange {
                first: first.into(),
                last: u64::from(first) + u64::from(more),
            },
            due: (Reference(from), Reference(to)),
        })
}

proptest! {
    /// A receipt part survives its encoding.
    #[test]
    fn receipt_round_trip(
        samples in vec(sample(), 0..40), missing in vec(missing(), 0..5), found in vec(missing(), 0..5),
        counts: [u64; 5], dropped in vec((any::<i64>(), any::<u64>()), 0..4),
    ) {
        let [duplicates, retained, unstamped, foreign, reordered] = counts;
        let dropped = dropped.into_iter().map(|(second, count)| (Second(second), count)).collect();
        let part = ReceiptPart { samples, duplicates, retained, unstamped, foreign, reordered, dropped, missing, found };
        prop_assert_eq!(ReceiptPart::decode(&part.encode()), Ok(part));
    }

    /// A send part and both heads survive their encoding.
    #[test]
    fn send_round_trip(
        epoch: u64, counts: [u64; 4], first: Option<u64>, warmup: bool, late in vec(any::<i32>(), 0..20),
        ranges in vec((any::<u32>(), any::<u32>()), 0..5), bound_ns: u64, flags: [bool; 2], absences in vec(any::<(i64, i64)>(), 0..4),
    ) {
        let ranges: Vec<SeqRange> =
            ranges.into_iter().map(|(a, b)| SeqRange { first: a.into(), last: u64::from(a) + u64::from(b) }).collect();
        let mut histogram = Histogram::default();
        late.iter().for_each(|&late| histogram.record(late.into()));
        let part = SendPart {
            epoch: Epoch(epoch), scheduled: counts[0], sent: counts[1], unsent: counts[2], first_sequence: first,
            acked: counts[3], refused: ranges.clone(), unconfirmed: ranges, warmup,
            late: histogram.clone(), ack: Histogram::default(), complete: histogram,
        };
        prop_assert_eq!(SendPart::decode(&part.encode()), Ok(part));
        let head = SendHead { daemon: DaemonId(epoch), domain: Domain(7), messages: counts[0], late: counts[1], extreme: counts[2], bound_ns, era_changed: flags[0] };
        prop_assert_eq!(SendHead::decode(&head.encode()), Ok(head));
        let head = ReceiptHead {
            daemon: DaemonId(epoch), domain: Domain(7), bound_ns, era_changed: flags[0], ack_limited: flags[1],
            absences: absences.into_iter().map(|(from, to)| (Reference(from), Reference(to))).collect(),
        };
        prop_assert_eq!(ReceiptHead::decode(&head.encode()), Ok(head));
    }

    /// No bytes make a decoder panic, however they begin.
    #[test]
    fn any_bytes(mut bytes: Vec<u8>) {
        for _ in 0..2 {
            let _ = ReceiptPart::decode(&bytes);
            let _ = SendPart::decode(&bytes);
            let _ = ReceiptHead::decode(&bytes);
            let _ = SendHead::decode(&bytes);
            bytes.insert(0, VERSION);
        }
    }

    /// Nor does a valid part with a byte changed or its end cut off.
    #[test]
    fn damaged_bytes(samples in vec(sample(), 0..10), missing in vec(missing(), 0..3), at: prop::sample::Index, byte: u8, cut: bool) {
        let mut bytes = ReceiptPart { samples, missing, ..ReceiptPart::default() }.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        let _ = ReceiptPart::decode(&bytes);
    }
}

/// An ordinary second of a device costs no more than was promised.
#[test]
fn samples_are_small() {
    let samples = (0..1000_i64).map(|n| {
        let due = 1_800_000_000_000_000_000 + n * 1_000_000;
        let sent = due + 90_000 + n * 37 % 20_000;
        let transit_ns = 600_000 + n * 7919 % 900_000;
        Sample {
            epoch: Epoch(0xfeed_beef_dead_cafe),
            sequence: 123_456 + n as u64,
            due: Reference(due),
            sent: Reference(sent),
            received: Reference(sent + transit_ns + n % 50),
            transit_ns,
            delay: ConsumerDelay::None,
            warmup: false,
        }
    });
    let bytes = ReceiptPart {
        samples: samples.collect(),
        ..ReceiptPart::default()
    }
    .encode()
    .len();
    assert!(bytes < 9_000, "{bytes} bytes for 1000 samples");
}
