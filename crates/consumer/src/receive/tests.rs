//! Hand-made deliveries against one slice.

use std::sync::Arc;

use isochrone_model::{
    entry::{ReceiptHead, ReceiptPart},
    id::{DaemonId, Domain, Epoch, Token, Topic},
    row::{Device, SendRow},
    tracker::Book,
};
use isochrone_store::types::{Claimed, DeviceState, Left};
use isochrone_transport::DeliveryId;

use super::*;
use crate::flush::Batch;

const MS: u64 = 1_000_000;
const HERE: Domain = Domain(7);
const OFFSET: Offset = Offset {
    reference_minus_monotonic_ns: 1_000_000 * NANOS_PER_SECOND,
    bound_ns: 250,
    era: 0,
};

/// A slice with one claim of one device, and what a worker has around it.
struct Bench {
    slice: Slice,
    ration: Ration,
    absences: Absences,
    delivered: u64,
    now: Monotonic,
}

fn device(epoch: u64, topic: &str) -> DeviceState {
    DeviceState {
        device: Device {
            epoch: Epoch(epoch),
            device: "0-0".to_owned(),
            client_id: String::new(),
            topic: topic.into(),
            response_topic: topic.into(),
            url: "memory:test".to_owned(),
            qos: 1,
            mqtt_version: "5".to_owned(),
            rate: Some(100.0),
            domain: HERE,
            producer: DaemonId(1),
            ordinal: 0,
            number: 0,
        },
        row: SendRow::default(),
    }
}

fn claimed(topic: &str, epochs: &[u64]) -> Claimed {
    Claimed {
        topic: topic.into(),
        token: Token(5),
        devices: epochs.iter().map(|epoch| device(*epoch, topic)).collect(),
        left: Left::Never,
        left_at: Reference(0),
        state: None,
        stored: 0,
        dropped: 0,
    }
}

impl Bench {
    fn new() -> Bench {
        let now = Monotonic(1_000 * MS);
        let mut slice = Slice::new(DaemonId(9), HERE);
        slice.open_link(0, true, true);
        assert!(slice.add(&claimed("t", &[1]), 0, (now, OFFSET.at(now))));
        let mut bench = Bench {
            slice,
            ration: Ration::new(1_000_000),
            absences: Absences::new(MS, now),
            delivered: 0,
            now,
        };
        bench.poll(|receiver| {
            let topic = "t".into();
            let at = Monotonic(1_000 * MS);
            receiver.event(SubscribeEvent::Subscribed {
                topic,
                at,
                suback_ns: 5,
            });
        });
        bench
    }

    fn poll(&mut self, act: impl FnOnce(&mut Receiver<'_>)) -> Outcome {
        let now = OFFSET.at(self.now);
        let mut receiver = Receiver {
            slice: &mut self.slice,
            ration: &mut self.ration,
            absences: &self.absences,
            link: 0,
            offset: OFFSET,
            outcome: Outcome::default(),
            now,
            second: (now.second().start(), now.second()),
        };
        act(&mut receiver);
        receiver.outcome
    }

    /// One message, one millisecond after the last.
    fn message(&mut self, payload: &[u8], property: Option<&[u8]>, retained: bool) -> Outcome {
        self.now = self.now + MS;
        self.delivered += 1;
        let (id, received) = (DeliveryId(self.delivered), self.now);
        self.poll(|receiver| {
            receiver.message(Delivery {
                id,
                topic: "t",
                payload,
                property,
                retained,
                received,
            });
        })
    }

    /// Sent half a millisecond before it arrives.
    fn stamp(&self, epoch: u64, sequence: u64) -> Stamp {
        let sent_monotonic = Monotonic(self.now.0 + MS / 2);
        Stamp {
            domain: HERE,
            epoch: Epoch(epoch),
            sequence,
            warmup: false,
            due: OFFSET.at(Monotonic(self.now.0)),
            sent: OFFSET.at(sent_monotonic),
            sent_monotonic,
        }
    }

    fn stamped(&mut self, epoch: u64, sequence: u64) -> Outcome {
        let text = self.stamp(epoch, sequence).to_text();
        self.message(text.as_bytes(), None, false)
    }

    fn flush(&mut self) -> Option<Batch> {
        self.slice.flush(OFFSET.at(self.now), OFFSET, &self.absences)
    }

    /// Everything the next flush holds, as one part.
    fn part(&mut self) -> ReceiptPart {
        let batch = self.flush().unwrap();
        let mut all = ReceiptPart::default();
        for entry in &batch.flush.entries {
            for part in &entry.parts {
                let part = ReceiptPart::decode(&part.body).unwrap();
                all.samples.extend(part.samples);
                all.duplicates += part.duplicates;
                all.retained += part.retained;
                all.unstamped += part.unstamped;
                all.foreign += part.foreign;
                all.dropped.extend(part.dropped);
            }
        }
        all
    }

    fn arrived_equation_holds(&self) {
        let row = self.slice.claims().next().unwrap().book.row();
        let parts = row.unique + row.duplicate + row.retained + row.unstamped + row.foreign;
        assert_eq!(row.arrived, parts, "{row:?}");
    }
}

/// A stamped message is one sample with its latency; its copy is a duplicate and gives none.
#[test]
fn a_copy_is_counted_and_not_measured() {
    let mut bench = Bench::new();
    bench.stamped(1, 0);
    let copy = bench.stamp(1, 0).to_text();
    bench.message(copy.as_bytes(), None, false);
    let part = bench.part();
    assert_eq!((part.samples.len(), part.duplicates), (1, 1));
    let sample = part.samples[0];
    assert_eq!(sample.transit_ns, MS as i64 / 2);
    assert_eq!(sample.response_ns(), MS as i64);
    assert_eq!(sample.delay, ConsumerDelay::None);
    bench.arrived_equation_holds();
}

/// No stamp, half a stamp and a stamp with a wrong checksum are unstamped; a retained message is retained, whatever is in it.
#[test]
fn what_is_no_stamp_is_counted_by_kind() {
    let mut bench = Bench::new();
    let whole = bench.stamp(1, 0).to_text();
    let mut wrong = whole.clone().into_bytes();
    wrong[20] = if wrong[20] == b'A' { b'B' } else { b'A' };
    for payload in [
        &b""[..],
        b"no stamp here",
        &whole.as_bytes()[..40],
        &wrong,
        &[0xff; 100],
    ] {
        bench.message(payload, None, false);
    }
    bench.message(whole.as_bytes(), None, true);
    bench.message(b"", None, true);
    let part = bench.part();
    assert_eq!((part.unstamped, part.retained, part.samples.len()), (5, 2, 0));
    bench.arrived_equation_holds();
}

/// A megabyte of anything is read through, with or without a stamp at its end.
#[test]
fn a_megabyte_is_no_problem() {
    let mut bench = Bench::new();
    let mut payload = vec![b'i'; 1 << 20];
    bench.message(&payload, None, false);
    let stamp = bench.stamp(1, 0).to_text();
    payload.extend_from_slice(stamp.as_bytes());
    payload.extend_from_slice(b"\"}}");
    bench.message(&payload, None, false);
    let part = bench.part();
    assert_eq!((part.unstamped, part.samples.len()), (1, 1));
}

/// A stamp in the property counts where the payload has none; a property that is not ours does not hide the payload's.
#[test]
fn the_property_is_looked_at_first() {
    let mut bench = Bench::new();
    let stamp = bench.stamp(1, 0).to_text();
    bench.message(b"plain", Some(stamp.as_bytes()), false);
    let stamp = bench.stamp(1, 1).to_text();
    bench.message(stamp.as_bytes(), Some(b"something else"), false);
    assert_eq!(bench.part().samples.len(), 2);
}

/// An unknown epoch waits for the registry: it is foreign when the registry, asked later, does not know it here; a
/// sample when it does. Foreign epochs are not asked for again.
#[test]
fn unknown_epochs_wait_for_the_registry() {
    let mut bench = Bench::new();
    assert!(bench.stamped(2, 0).unknown);
    assert!(bench.stamped(3, 0).unknown);
    let asked_at = bench.now;
    assert!(bench.stamped(3, 1).unknown);
    assert_eq!(bench.slice.waiting.len(), 3);
    let found = [device(1, "t"), device(2, "t"), device(3, "elsewhere")];
    let now = OFFSET.at(bench.now);
    let (slice, absences, ration) = (&mut bench.slice, &bench.absences, &mut bench.ration);
    slice.devices(&found, asked_at, now, absences, ration);
    assert_eq!(
        bench.slice.waiting.len(),
        1,
        "read after the question: decided by the next answer"
    );
    assert!(!bench.stamped(3, 2).unknown, "known to be foreign");
    let now = OFFSET.at(bench.now);
    let (slice, absences, ration) = (&mut bench.slice, &bench.absences, &mut bench.ration);
    slice.devices(&found, bench.now, now, absences, ration);
    let part = bench.part();
    assert_eq!((part.samples.len(), part.foreign), (1, 3));
    assert_eq!(part.samples[0].epoch, Epoch(2));
    assert_eq!(part.samples[0].transit_ns, MS as i64 / 2);
    bench.arrived_equation_holds();
}

/// However many unknown epochs come, what waits is bounded and nothing is uncounted.
#[test]
fn the_waiting_list_is_bounded() {
    let mut bench = Bench::new();
    for epoch in 0..WAITING as u64 + 10 {
        bench.stamped(1_000 + epoch, 0);
    }
    assert_eq!(bench.slice.waiting.len(), WAITING);
    let (slice, absences, ration) = (&mut bench.slice, &bench.absences, &mut bench.ration);
    slice.devices(&[], bench.now, OFFSET.at(bench.now), absences, ration);
    assert_eq!(bench.part().foreign, WAITING as u64 + 10);
    bench.arrived_equation_holds();
}

/// A message on a topic that is not held touches no claim.
#[test]
fn a_stray_message_is_only_counted() {
    let mut bench = Bench::new();
    let topic: Topic = "t".into();
    bench.slice.remove(&topic, &mut bench.ration);
    bench.stamped(1, 0);
    assert_eq!(bench.slice.tally.stray, 1);
    assert!(bench.flush().is_none());
    assert_eq!(bench.slice.covers(), [(0, DeliveryId(1))], "acknowledged all the same");
}

/// Samples of two seconds are two entries of one flush, their total is that before them, their state that after them.
#[test]
fn a_flush_holds_all_seconds_and_one_state() {
    let mut bench = Bench::new();
    bench.flush();
    bench.now = Monotonic(1_998 * MS);
    for sequence in 0..4 {
        bench.stamped(1, sequence);
    }
    let first = bench.flush().unwrap();
    assert_eq!(first.flush.entries.len(), 2);
    assert_eq!(first.samples, 4);
    assert_eq!(first.covers, [(0, DeliveryId(4))]);
    let save = &first.flush.states[0];
    assert_eq!((save.total_before, save.token), (0, Token(5)));
    assert_eq!(Book::load(&save.state).unwrap().unique(), 4);
    let head = ReceiptHead::decode(&first.flush.entries[0].head).unwrap();
    assert_eq!((head.daemon, head.bound_ns, head.ack_limited), (DaemonId(9), 0, true));
    assert_eq!(bench.slice.stored(&first.covers), [(0, DeliveryId(4))]);
    assert!(bench.slice.stored(&first.covers).is_empty(), "acknowledged once");
    bench.stamped(1, 4);
    let second = bench.flush().unwrap();
    assert_eq!(second.flush.batch, first.flush.batch + 1);
    assert_eq!(second.flush.states[0].total_before, 4);
    assert!(bench.flush().is_none(), "nothing changed");
}

/// After an outage there is much to write: it goes in several flushes, the longest waiting first, and what came before the first
/// of them is acknowledged with the last.
#[test]
fn much_is_flushed_in_a_round() {
    const TOPICS: usize = 5_000;
    let mut bench = Bench::new();
    bench.flush();
    let now = (bench.now, OFFSET.at(bench.now));
    for number in 0..TOPICS {
        let topic = format!("t/{number}");
        assert!(bench.slice.add(&claimed(&topic, &[]), 0, now));
        let index = bench.slice.find(&topic).unwrap();
        bench.slice.part(index, now.1.second()).unwrap().duplicates += 1;
    }
    bench.stamped(1, 0);
    bench.slice.facts_of(now.1.second()).era_changed = true;
    let era_changed = |batch: &Batch| {
        let heads = batch
            .flush
            .entries
            .iter()
            .map(|entry| ReceiptHead::decode(&entry.head).unwrap());
        heads.map(|head| head.era_changed).collect::<Vec<_>>()
    };
    let mut flushed = Vec::new();
    for is_last in [false, true] {
        let batch = bench.flush().unwrap();
        assert_eq!(batch.is_last, is_last);
        assert_eq!(era_changed(&batch), [true], "said in each");
        let covers = if is_last { vec![(0, DeliveryId(1))] } else { Vec::new() };
        assert_eq!(batch.covers, covers);
        flushed.extend(batch.flush.states.iter().map(|state| state.topic.to_string()));
        // Comes between two of them, is in the last one or the next round.
        bench.stamped(1, flushed.len() as u64);
    }
    let topics = (0..TOPICS).map(|number| format!("t/{number}"));
    assert_eq!(flushed, topics.chain(["t".to_owned()]).collect::<Vec<_>>());
    let next = bench.flush().unwrap();
    assert_eq!((next.is_last, next.flush.states.len(), next.samples), (true, 1, 1));
    assert_eq!(
        (next.covers.clone(), era_changed(&next)),
        (vec![(0, DeliveryId(3))], vec![false])
    );
}

/// A renewal's list says nothing about what was taken after it had been asked for.
#[test]
fn a_list_counts_against_what_is_older() {
    let mut bench = Bench::new();
    let before = bench.now;
    let now = (before + MS, OFFSET.at(before + MS));
    bench.slice.add(&claimed("new", &[2]), 0, now);
    assert_eq!(bench.slice.lost(&[("t".into(), Token(5))], before), []);
    assert_eq!(bench.slice.lost(&[], before + MS), [Topic::from("t")]);
    assert_eq!(bench.slice.lost(&[], before + 2 * MS).len(), 2);
}

/// What waits for the registry is not acknowledged, nor what came after it.
#[test]
fn what_waits_is_not_acknowledged() {
    let mut bench = Bench::new();
    bench.stamped(1, 0);
    bench.stamped(99, 0);
    bench.stamped(1, 1);
    assert_eq!(bench.flush().unwrap().covers, [(0, DeliveryId(1))]);
}

/// Samples dropped from the buffer are in the next part, by due-second, and the running total is ahead by them.
#[test]
fn dropped_samples_are_told() {
    let mut bench = Bench::new();
    for sequence in 0..10 {
        bench.stamped(1, sequence);
    }
    let second = bench.slice.oldest().unwrap();
    assert_eq!(bench.slice.drop_oldest(second, 4), 4);
    let batch = bench.flush().unwrap();
    assert_eq!((batch.samples, batch.flush.states[0].total_before), (6, 4));
    let part = ReceiptPart::decode(&batch.flush.entries[0].parts[0].body).unwrap();
    assert_eq!(part.dropped.iter().map(|(_, count)| count).sum::<u64>(), 4);
    assert_eq!(part.samples[0].sequence, 4);
}

/// A message from another clock domain is measured on the reference clock, and the entry names the bound.
#[test]
fn another_domain_is_measured_with_a_bound() {
    let mut bench = Bench::new();
    let mut stamp = bench.stamp(1, 0);
    stamp.domain = Domain(8);
    stamp.sent_monotonic = Monotonic(1);
    stamp.sent = stamp.sent + 2_000_000;
    bench.message(stamp.to_text().as_bytes(), None, false);
    let batch = bench.flush().unwrap();
    let head = ReceiptHead::decode(&batch.flush.entries[0].head).unwrap();
    assert_eq!(head.bound_ns, 250);
    let part = ReceiptPart::decode(&batch.flush.entries[0].parts[0].body).unwrap();
    assert_eq!(part.samples[0].transit_ns, -1_500_000, "kept, though it is negative");
}

/// A successor marks what was under way while nobody listened, and goes on from the totals.
#[test]
fn a_takeover_is_an_absence() {
    let mut bench = Bench::new();
    bench.stamped(1, 0);
    let state = bench.flush().unwrap().flush.states[0].state.clone();
    let saved_at = bench.now;
    let claimed = Claimed {
        token: Token(6),
        left: Left::Died,
        left_at: OFFSET.at(saved_at),
        state: Some(state),
        stored: 1,
        ..claimed("t", &[1])
    };
    let mut next = Bench::new();
    next.slice = Slice::new(DaemonId(10), HERE);
    next.slice.open_link(0, true, true);
    next.now = Monotonic(saved_at.0 + 5_000 * MS);
    next.slice.add(&claimed, 0, (next.now, OFFSET.at(next.now)));
    let at = next.now;
    next.poll(|receiver| {
        let topic: Arc<str> = "t".into();
        receiver.event(SubscribeEvent::Subscribed {
            topic,
            at,
            suback_ns: 5,
        });
    });
    let mut queued = next.stamp(1, 1);
    queued.sent_monotonic = Monotonic(at.0 - 1_000 * MS);
    queued.sent = OFFSET.at(queued.sent_monotonic);
    next.message(queued.to_text().as_bytes(), None, false);
    next.stamped(1, 2);
    let batch = next.flush().unwrap();
    assert_eq!(batch.flush.states[0].total_before, 1);
    let parts = batch.flush.entries.iter().flat_map(|entry| &entry.parts);
    let samples: Vec<Sample> = parts
        .flat_map(|part| ReceiptPart::decode(&part.body).unwrap().samples)
        .collect();
    assert_eq!(
        samples.iter().map(|sample| sample.delay).collect::<Vec<_>>(),
        [ConsumerDelay::Extreme, ConsumerDelay::None]
    );
}

/// What a run held is given back when it is dismissed, and nothing that comes later is held.
#[test]
fn a_dismissed_slice_holds_nothing() {
    let mut bench = Bench::new();
    for sequence in 0..10 {
        bench.stamped(1, sequence);
    }
    assert_eq!(bench.ration.held, 10);
    assert_eq!(bench.slice.dismiss(&mut bench.ration), 1);
    bench.stamped(1, 10);
    assert_eq!((bench.ration.held, bench.slice.tally.stray), (0, 1));
    assert!(bench.flush().is_none() && bench.slice.is_empty());
}

/// What holds for a second is in the first entry of it, however many flushes later; what is kept is bounded.
#[test]
fn facts_wait_for_their_second() {
    let mut bench = Bench::new();
    bench.flush();
    bench.stamped(1, 0);
    let second = OFFSET.at(bench.now).second();
    let later = Second(second.0 + 1);
    bench.slice.facts_of(later).era_changed = true;
    let head = |batch: Batch| ReceiptHead::decode(&batch.flush.entries[0].head).unwrap();
    assert!(!head(bench.flush().unwrap()).era_changed);
    bench.now = bench.now + 1_000 * MS;
    bench.stamped(1, 1);
    assert!(head(bench.flush().unwrap()).era_changed);
    bench.stamped(1, 2);
    assert!(!head(bench.flush().unwrap()).era_changed, "said once");

    let last = later.0 + 1_000;
    for second in later.0..=last {
        bench.slice.facts_of(Second(second)).bound_ns = (last - second) as u64;
    }
    assert!(bench.slice.facts.len() <= 120);
    assert!(
        bench.slice.facts.iter().any(|(_, facts)| facts.bound_ns == 1_000),
        "folded, not lost"
    );
}

/// What the store left out is told with the next flush: samples as dropped, by due-second, and whatever else was counted.
#[test]
fn what_the_store_left_out_is_told() {
    let mut bench = Bench::new();
    bench.flush();
    bench.now = Monotonic(1_998 * MS);
    for sequence in 0..4 {
        bench.stamped(1, sequence);
    }
    let copy = bench.stamp(1, 3).to_text();
    bench.message(copy.as_bytes(), None, false);
    let batch = bench.flush().unwrap();
    assert_eq!(batch.flush.entries.len(), 2);
    let now = OFFSET.at(bench.now);
    bench.slice.left_out(&batch.flush, 1, &["t".into()], now);
    assert!(bench.flush().is_none(), "fenced: all of it is another's to tell");
    bench.slice.left_out(&batch.flush, 1, &[], now);
    let part = bench.part();
    // Received in the second that was left out; one of them was due in the one before.
    let [before, second] = [0, 1].map(|entry| batch.flush.entries[entry].second);
    assert_eq!((part.dropped, part.duplicates), (vec![(before, 1), (second, 2)], 1));
    assert!(part.samples.is_empty());
}

/// A topic is not settled while the registry is asked for an epoch; closed all the same, its messages are foreign.
#[test]
fn what_waits_is_counted_at_the_end() {
    let mut bench = Bench::new();
    bench.stamped(1, 0);
    let mut last = device(1, "t");
    last.row = SendRow {
        sent: 1,
        ended: true,
        ..SendRow::default()
    };
    let topics: Vec<Topic> = vec!["t".into()];
    let (token, now) = (Token(5), OFFSET.at(bench.now));
    bench.slice.told_ready(&[("t".into(), token)]);
    let (slice, absences, ration) = (&mut bench.slice, &bench.absences, &mut bench.ration);
    slice.devices(&[last], bench.now, now, absences, ration);
    assert_eq!(bench.slice.settled(), topics);
    bench.stamped(99, 0);
    assert!(bench.slice.settled().is_empty());
    bench.slice.close(&topics[0], now);
    assert_eq!(bench.part().foreign, 1);
    assert!(bench.slice.waiting.is_empty());
    bench.arrived_equation_holds();
}
