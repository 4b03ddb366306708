//! The windows of one cut, for sinks that take every window once.
//!
//! Only the cut's entries and the registrations enter, so that every replay makes the same windows. That is why ranges
//! that did not arrive are placed by the consumer's interpolation here, and by the producers' rows in the totals.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    entry::{ReceiptHead, ReceiptPart, SendHead, SendPart},
    id::{DaemonId, Topic},
    time::Second,
    verdict::{ClockDoubt, Lateness, Reasons, SecondFacts, verdict},
    window::{
        CutEntry, Devices, TopicTotals, Window, WindowKind,
        digest::{Digest, given_up},
        firsts::interpolate,
        transit_bound_ns,
    },
};

/// A window in the making, with what its verdict depends on.
#[derive(Default)]
struct Draft {
    totals: TopicTotals,
    warmup: bool,
    bound_ns: u64,
    clock: ClockDoubt,
    era_changed: bool,
    ack_limited: bool,
    daemons: BTreeSet<DaemonId>,
}

#[derive(Default)]
struct Drafts<'a> {
    windows: BTreeMap<(WindowKind, Second, &'a Topic), Draft>,
    /// How late each daemon was in each second, over the whole cut.
    producers: BTreeMap<(Second, DaemonId), Lateness>,
    consumers: BTreeMap<(WindowKind, Second, DaemonId), Lateness>,
    /// Largest clock bound of any producer in each second of due.
    sending_bounds_ns: BTreeMap<Second, u64>,
}

/// The windows of one cut, by kind, second and topic. The same entries and registrations give the same windows,
/// whatever the entries' order. Parts of epochs without a registration are left out.
pub fn windows_of_cut(entries: &[CutEntry], devices: &Devices) -> Vec<Window> {
    let mut drafts = Drafts::default();
    for entry in entries {
        match entry {
            CutEntry::Receipt { second, head, parts } => drafts.add_receipt(*second, head, parts),
            CutEntry::Send { second, head, parts } => drafts.add_send(*second, head, parts, devices),
        }
    }
    drafts.finish()
}

impl<'a> Drafts<'a> {
    fn add_receipt(&mut self, second: Second, head: &ReceiptHead, parts: &'a [(Topic, ReceiptPart)]) {
        let digest = Digest::of(head, parts);
        let receipt = (WindowKind::Receipt, second, head.daemon);
        self.consumers.entry(receipt).or_default().add(digest.receipt.lateness);
        for &(due, tally) in &digest.due {
            self.consumers
                .entry((WindowKind::Due, due, head.daemon))
                .or_default()
                .add(tally.lateness);
        }
        for (topic, part) in parts {
            let draft = self.draft(WindowKind::Receipt, second, topic, head, digest.doubt);
            draft.totals.count_receipt(part);
            for sample in &part.samples {
                draft.warmup |= sample.warmup;
                draft.totals.transit.record(sample.transit_ns);
            }
            self.add_by_due(topic, part, head, digest.doubt);
        }
    }

    fn add_by_due(&mut self, topic: &'a Topic, part: &'a ReceiptPart, head: &ReceiptHead, doubt: ClockDoubt) {
        // Messages due in the same second mostly follow each other.
        for run in part.samples.chunk_by(|a, b| a.due.second() == b.due.second()) {
            let Some(first) = run.first() else { continue };
            let draft = self.draft(WindowKind::Due, first.due.second(), topic, head, doubt);
            draft.totals.received += run.len() as u64;
            for sample in run {
                draft.warmup |= sample.warmup;
                draft.totals.response.record(sample.response_ns());
                draft.totals.publish_delay.record(sample.publish_delay_ns());
            }
        }
        let none = ClockDoubt::default();
        for &(second, count) in &part.dropped {
            self.bare_draft(second, topic, none).totals.dropped += count;
        }
        for missing in &part.missing {
            for (second, count) in interpolate(missing) {
                self.bare_draft(second, topic, none)
                    .totals
                    .missing
                    .add(given_up(missing, count));
            }
        }
        for found in &part.found {
            for (second, count) in interpolate(found) {
                self.bare_draft(second, topic, none)
                    .totals
                    .found
                    .add(given_up(found, count));
            }
        }
    }

    fn add_send(&mut self, second: Second, head: &SendHead, parts: &[SendPart], devices: &'a Devices) {
        let lateness = Lateness {
            messages: head.messages,
            late: head.late,
            extreme: head.extreme,
        };
        self.producers.entry((second, head.daemon)).or_default().add(lateness);
        let bound_ns = self.sending_bounds_ns.entry(second).or_default();
        *bound_ns = head.bound_ns.max(*bound_ns);
        for part in parts {
            let Some(device) = devices.get(&part.epoch) else {
                continue;
            };
            let draft = self.bare_draft(second, &device.response_topic, ClockDoubt::default());
            draft.daemons.insert(head.daemon);
            draft.era_changed |= head.era_changed;
            draft.warmup |= part.warmup;
            draft.totals.count_send(part);
            draft.totals.late.merge(&part.late);
            draft.totals.ack.merge(&part.ack);
            draft.totals.complete.merge(&part.complete);
        }
    }

    /// The draft of a window that samples of `head`'s entry fall into.
    fn draft(
        &mut self,
        kind: WindowKind,
        second: Second,
        topic: &'a Topic,
        head: &ReceiptHead,
        doubt: ClockDoubt,
    ) -> &mut Draft {
        let draft = self.windows.entry((kind, second, topic)).or_default();
        draft.bound_ns = draft.bound_ns.max(head.bound_ns);
        draft.clock = draft.clock.worse(doubt);
        draft.era_changed |= head.era_changed;
        draft.ack_limited |= head.ack_limited;
        draft.daemons.insert(head.daemon);
        draft
    }

    fn bare_draft(&mut self, second: Second, topic: &'a Topic, doubt: ClockDoubt) -> &mut Draft {
        let draft = self.windows.entry((WindowKind::Due, second, topic)).or_default();
        draft.clock = draft.clock.worse(doubt);
        draft
    }

    fn finish(self) -> Vec<Window> {
        let Drafts {
            windows,
            producers,
            consumers,
            sending_bounds_ns,
        } = self;
        let largest_bound_ns = sending_bounds_ns.values().max().copied().unwrap_or(0);
        let finish = |((kind, second, topic), mut draft): ((WindowKind, Second, &Topic), Draft)| {
            draft.totals.seconds = Some((second, second));
            // Late samples come in a cut without the rows of their second: its other seconds' bounds are much the same.
            let sending_ns = sending_bounds_ns.get(&second).copied().unwrap_or(largest_bound_ns);
            draft.clock = draft.clock.and(sending_ns);
            let reasons = reasons(kind, second, &draft, &producers, &consumers);
            Window {
                kind,
                second,
                topic: topic.clone(),
                warmup: draft.warmup,
                reasons,
                bound_ns: transit_bound_ns(draft.bound_ns, sending_ns),
                totals: draft.totals,
            }
        };
        windows.into_iter().map(finish).collect()
    }
}

fn reasons(
    kind: WindowKind,
    second: Second,
    draft: &Draft,
    producers: &BTreeMap<(Second, DaemonId), Lateness>,
    consumers: &BTreeMap<(WindowKind, Second, DaemonId), Lateness>,
) -> Reasons {
    let mut facts = SecondFacts {
        missing: draft.totals.missing,
        dropped: draft.totals.dropped,
        clock: draft.clock,
        era_changed: draft.era_changed,
        ack_limited: draft.ack_limited,
        ..SecondFacts::default()
    };
    for &daemon in &draft.daemons {
        if let Some(&lateness) = consumers.get(&(kind, second, daemon)) {
            facts.consumers_by_due.insert(daemon, lateness);
        }
        if let Some(&lateness) = producers.get(&(second, daemon)).filter(|_| kind == WindowKind::Due) {
            facts.producers.insert(daemon, lateness);
        }
    }
    verdict(&facts).reasons
}
