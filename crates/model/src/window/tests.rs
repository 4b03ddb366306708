use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    entry::{ConsumerDelay, Missing, MissingKind, Sample},
    id::DaemonId,
    range::SeqRange,
    time::{NANOS_PER_SECOND, Reference},
    verdict::{self, Reason},
    window::firsts::interpolate,
};

const START: i64 = 1_800_000_000;
const MS: i64 = 1_000_000;

fn device(number: u64) -> Device {
    Device {
        epoch: Epoch(number),
        device: format!("device-{number}"),
        client_id: String::new(),
        topic: format!("up/{number}").as_str().into(),
        response_topic: format!("down/{}", number % 2).as_str().into(),
        url: "memory:".to_owned(),
        qos: 1,
        mqtt_version: "5".to_owned(),
        rate: Some(1.0),
        domain: Domain(1),
        producer: DaemonId(1),
        ordinal: 0,
        number: 0,
    }
}

fn devices() -> Devices {
    (0..4).map(|number| (Epoch(number), device(number))).collect()
}

fn sample(epoch: u64, sequence: u64, due_ns: i64) -> Sample {
    let due = Reference(START * NANOS_PER_SECOND + due_ns);
    Sample {
        epoch: Epoch(epoch),
        sequence,
        due,
        sent: due + MS,
        received: due + 3 * MS,
        transit_ns: 2 * MS,
        delay: ConsumerDelay::None,
        warmup: false,
    }
}

fn receipt_head() -> ReceiptHead {
    ReceiptHead {
        daemon: DaemonId(2),
        domain: Domain(2),
        bound_ns: 0,
        era_changed: false,
        ack_limited: false,
        absences: Vec::new(),
    }
}

fn receipt(second: i64, topic: &str, part: ReceiptPart) -> CutEntry {
    CutEntry::Receipt {
        second: Second(START + second),
        head: receipt_head(),
        parts: vec![(topic.into(), part)],
    }
}

fn missing(epoch: u64, kind: MissingKind, range: (u64, u64), due_ns: (i64, i64)) -> Missing {
    let at = |ns: i64| Reference(START * NANOS_PER_SECOND + ns);
    Missing {
        epoch: Epoch(epoch),
        kind,
        range: SeqRange {
            first: range.0,
            last: range.1,
        },
        due: (at(due_ns.0), at(due_ns.1)),
    }
}

fn send(second: i64, parts: Vec<SendPart>) -> CutEntry {
    let head = SendHead {
        daemon: DaemonId(1),
        domain: Domain(1),
        messages: 100,
        late: 1,
        extreme: 0,
        bound_ns: 0,
        era_changed: false,
    };
    CutEntry::Send {
        second: Second(START + second),
        head,
        parts,
    }
}

fn any_missing() -> impl Strategy<Value = Missing> {
    let kinds = prop::sample::select(vec![MissingKind::Unrecorded, MissingKind::Unheard, MissingKind::Lost]);
    (
        0..4_u64,
        kinds,
        0..1000_u64,
        0..1000_u64,
        -10..2000 * 1000 * MS,
        0..20_000 * MS,
    )
        .prop_map(|(epoch, kind, first, more, due, span)| {
            missing(epoch, kind, (first, first + more), (due, due + span))
        })
}

fn any_receipt() -> impl Strategy<Value = CutEntry> {
    let delays = prop::sample::select(vec![ConsumerDelay::None, ConsumerDelay::Late, ConsumerDelay::Extreme]);
    let samples = vec((0..4_u64, 0..9_u64, -3000..0_i64, delays, any::<bool>()), 0..10);
    (
        0..2000_i64,
        samples,
        any::<[u8; 3]>(),
        vec(any_missing(), 0..3),
        vec(any_missing(), 0..2),
        any::<(u32, bool, bool)>(),
    )
        .prop_map(
            |(second, samples, counts, missing, found, (bound, era_changed, ack_limited))| {
                let samples = samples.into_iter().map(|(epoch, sequence, due, delay, warmup)| Sample {
                    delay,
                    warmup,
                    ..sample(epoch, sequence, second * 1000 * MS + due * MS)
                });
                let part = ReceiptPart {
                    samples: samples.collect(),
                    duplicates: counts[0].into(),
                    foreign: counts[1].into(),
                    dropped: vec![(Second(START + second - 1), counts[2].into())],
                    missing,
                    found,
                    ..ReceiptPart::default()
                };
                let head = ReceiptHead {
                    bound_ns: bound.into(),
                    era_changed,
                    ack_limited,
                    ..receipt_head()
                };
                let parts = vec![("down/0".into(), part.clone()), ("down/1".into(), part)];
                CutEntry::Receipt {
                    second: Second(START + second),
                    head,
                    parts,
                }
            },
        )
}

fn any_send() -> impl Strategy<Value = CutEntry> {
    let part = (
        0..5_u64,
        any::<[u8; 3]>(),
        any::<Option<u16>>(),
        any::<bool>(),
        vec(0..1_000_000_i64, 0..5),
    );
    (0..2000_i64, vec(part, 0..4)).prop_map(|(second, parts)| {
        let parts = parts.into_iter().map(|(epoch, counts, first, warmup, late)| {
            let mut histogram = Histogram::default();
            late.into_iter().for_each(|late| histogram.record(late));
            SendPart {
                epoch: Epoch(epoch),
                scheduled: counts[0].into(),
                sent: counts[1].into(),
                acked: counts[2].into(),
                first_sequence: first.map(u64::from),
                warmup,
                late: histogram,
                ..SendPart::default()
            }
        });
        send(second, parts.collect())
    })
}

fn any_entry() -> impl Strategy<Value = CutEntry> {
    prop_oneof![any_receipt(), any_send()]
}

fn totals() -> Totals {
    let mut totals = Totals::new();
    devices().values().for_each(|device| totals.know_device(device));
    totals
}

fn load(hash: &BTreeMap<String, Vec<u8>>) -> Totals {
    let mut totals = Totals::load(hash.clone().into_iter().collect()).unwrap();
    devices().values().for_each(|device| totals.know_device(device));
    totals
}

fn assert_same(a: &Totals, b: &Totals) {
    assert_eq!(a.topics(), b.topics());
    assert_eq!(a.seconds(), b.seconds());
    assert_eq!(codec::run(a.run()), codec::run(b.run()));
    assert_eq!(a.course(), b.course());
}

proptest! {
    /// However often the state is saved, forgotten and loaded, the hash holds what all entries add up to.
    #[test]
    fn saves_add_up(entries in vec((any_entry(), any::<bool>(), 0..6_u8), 0..40)) {
        let mut whole = totals();
        let mut parts = totals();
        let mut hash = BTreeMap::new();
        for (entry, save, load_now) in entries {
            whole.apply(&entry);
            parts.apply(&entry);
            if save {
                hash.extend(parts.changed());
                prop_assert_eq!(parts.changed(), vec![]);
                if load_now == 0 {
                    parts = load(&hash);
                }
            }
        }
        hash.extend(parts.changed());
        assert_same(&load(&hash), &whole);
        let mut counts = BTreeMap::new();
        for (field, bytes) in &hash {
            let of_topic = Totals::counts_of_topic(field, bytes).unwrap();
            counts.extend(of_topic.map(|(topic, totals)| (topic, totals.counts())));
        }
        let of_topics: BTreeMap<_, _> = whole.topics().iter().map(|(topic, totals)| (topic.clone(), totals.counts())).collect();
        prop_assert_eq!(counts, of_topics);
        if let Some((last, _)) = parts.seconds().last_key_value() {
            let all_recent = parts.seconds().keys().all(|second| second.0 > last.0 - 12 * 60);
            prop_assert!(all_recent, "older minutes are in the hash alone");
        }
    }

    /// The same entries in another order give the same windows; and all windows together hold what the topics hold.
    #[test]
    fn windows_do_not_depend_on_order(entries in vec(any_entry(), 0..12), seed: u64) {
        let mut other = entries.clone();
        other.sort_by_key(|entry| format!("{entry:?}").bytes().fold(seed, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte)));
        let windows = windows_of_cut(&entries, &devices());
        prop_assert_eq!(&windows, &windows_of_cut(&other, &devices()));

        let mut sums: BTreeMap<Topic, TopicTotals> = BTreeMap::new();
        for window in &windows {
            let mut totals = window.totals.clone();
            if window.kind == WindowKind::Receipt {
                totals.received = 0;
            }
            sums.entry(window.topic.clone()).or_default().merge(&totals);
        }
        let mut whole = totals();
        entries.iter().for_each(|entry| whole.apply(entry));
        for (topic, totals) in whole.topics() {
            let sum = sums.get(topic).cloned().unwrap_or_default();
            prop_assert_eq!(totals.counts(), sum.counts());
            prop_assert!(totals.response.count() <= sum.response.count());
        }
    }

    /// Every message of a range falls into exactly one second, wherever the seconds' beginnings are known.
    #[test]
    fn spreading_loses_nothing(missing in any_missing(), known in vec((0..2000_i64, 0..1500_u64), 0..80)) {
        let mut firsts = Firsts::default();
        let mut known = known;
        known.sort();
        let mut sequence = 0;
        for (second, more) in known {
            sequence += more / 40;
            firsts.learn(missing.epoch, Second(START + second), sequence);
        }
        for spread in [firsts.spread(&missing), interpolate(&missing)] {
            prop_assert_eq!(spread.iter().map(|(_, count)| count).sum::<u64>(), missing.range.count());
        }
    }

    /// No bytes make a load panic.
    #[test]
    fn any_bytes(mut bytes: Vec<u8>) {
        for _ in 0..2 {
            for field in ["t:x", "run", "s:5", "s:5:1", "s:9223372036854775807", "s:x", "c:5", "c:-9223372036854775808", "c:x", "other"] {
                let _ = Totals::load(vec![(field.to_owned(), bytes.clone())]);
            }
            bytes.insert(0, 1);
        }
    }
}

#[test]
fn an_outage_is_seen_in_the_seconds_it_was_due_in() {
    let mut totals = totals();
    for second in 0..10 {
        let part = SendPart {
            scheduled: 10,
            sent: 10,
            first_sequence: Some(second * 10),
            ..SendPart::default()
        };
        totals.apply(&send(second as i64, vec![part]));
    }
    // The consumer only knows the neighbours, and those lie.
    let lost = missing(0, MissingKind::Lost, (25, 44), (0, 0));
    totals.apply(&receipt(
        9,
        "down/0",
        ReceiptPart {
            missing: vec![lost],
            ..ReceiptPart::default()
        },
    ));
    let lost: Vec<u64> = totals.seconds().values().map(|facts| facts.missing.lost).collect();
    assert_eq!(lost, [0, 0, 5, 10, 5, 0, 0, 0, 0, 0]);
    assert!(
        totals
            .seconds()
            .values()
            .all(|facts| verdict::verdict(facts).worst == Reason::Valid)
    );
}

#[test]
fn without_the_producers_rows_a_range_is_spread_evenly() {
    let range = missing(0, MissingKind::Lost, (0, 29), (0, 2_900 * MS));
    let second = |second| Second(START + second);
    assert_eq!(interpolate(&range), [(second(0), 10), (second(1), 10), (second(2), 10)]);
}

#[test]
fn warm_up_is_counted_and_not_measured() {
    let mut totals = totals();
    let warm = Sample {
        warmup: true,
        ..sample(0, 0, 0)
    };
    let part = ReceiptPart {
        samples: vec![warm, sample(0, 1, 1000 * MS)],
        ..ReceiptPart::default()
    };
    let entry = receipt(1, "down/0", part);
    totals.apply(&entry);
    let topic = &totals.topics()[&Topic::from("down/0")];
    assert_eq!(
        (topic.received, topic.response.count(), totals.run().response.count()),
        (2, 1, 1)
    );
    let warmup: Vec<bool> = totals.seconds().values().map(SecondFacts::is_warmup).collect();
    assert_eq!(warmup, [true, false]);
    let windows = windows_of_cut(&[entry], &devices());
    let flags: Vec<_> = windows
        .iter()
        .map(|window| (window.kind, window.second.0 - START, window.warmup))
        .collect();
    assert_eq!(
        flags,
        [
            (WindowKind::Due, 0, true),
            (WindowKind::Due, 1, false),
            (WindowKind::Receipt, 1, true)
        ]
    );
}

#[test]
fn across_domains_both_sides_bounds_count() {
    let cut = |receiving_ns, sending_ns| {
        let mut sent = send(0, vec![SendPart::default()]);
        if let CutEntry::Send { head, .. } = &mut sent {
            head.bound_ns = sending_ns;
        }
        let part = ReceiptPart {
            samples: vec![sample(0, 0, 0)],
            ..ReceiptPart::default()
        };
        let mut received = receipt(0, "down/0", part);
        if let CutEntry::Receipt { head, .. } = &mut received {
            head.bound_ns = receiving_ns;
        }
        [received, sent]
    };
    for (receiving_ns, sending_ns, bound_ns, reason) in [
        (600_000, 600_000, 1_200_000, Reason::ClockUnsure),
        (400_000, 500_000, 900_000, Reason::Valid),
        (0, 5_000_000, 0, Reason::Valid),
    ] {
        let entries = cut(receiving_ns, sending_ns);
        let mut totals = totals();
        entries.iter().for_each(|entry| totals.apply(entry));
        let loaded = load(&totals.changed().into_iter().collect());
        assert_eq!(loaded.run().bound_ns(), bound_ns);
        assert_eq!(verdict::verdict(&loaded.seconds()[&Second(START)]).worst, reason);
        for window in windows_of_cut(&entries, &devices()) {
            assert_eq!(
                (window.bound_ns, window.reasons.worst()),
                (bound_ns, reason),
                "{window:?}"
            );
        }
    }
}

#[test]
fn a_late_consumer_spoils_the_second_of_due_and_that_of_receipt() {
    let late = Sample {
        delay: ConsumerDelay::Extreme,
        ..sample(0, 0, 900 * MS)
    };
    let entry = receipt(
        2,
        "down/0",
        ReceiptPart {
            samples: vec![late],
            ..ReceiptPart::default()
        },
    );
    let mut totals = totals();
    totals.apply(&entry);
    let verdicts: Vec<_> = totals
        .seconds()
        .iter()
        .map(|(second, facts)| (second.0 - START, verdict::verdict(facts).worst))
        .collect();
    assert_eq!(verdicts, [(0, Reason::ConsumerLate), (2, Reason::ConsumerLate)]);
    assert!(
        windows_of_cut(&[entry], &devices())
            .iter()
            .all(|window| window.reasons.worst() == Reason::ConsumerLate)
    );
}

#[test]
fn partitions_merge_without_counting_a_producer_twice() {
    let part = |epoch| {
        vec![SendPart {
            epoch: Epoch(epoch),
            sent: 50,
            ..SendPart::default()
        }]
    };
    let (mut one, mut other) = (totals(), totals());
    one.apply(&send(0, part(0)));
    other.apply(&send(0, part(1)));
    one.merge(&other);
    let facts = &one.seconds()[&Second(START)];
    assert_eq!(facts.sent, 100);
    assert_eq!(facts.producers[&DaemonId(1)].messages, 100);
    assert_eq!(
        verdict::verdict(facts).worst,
        Reason::Valid,
        "one of a hundred is not over 1 %"
    );
}
