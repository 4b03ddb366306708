//! Adds entries to the totals.

use crate::{
    entry::{ReceiptHead, ReceiptPart, SendHead, SendPart},
    id::Topic,
    range::SeqRange,
    time::Second,
    verdict::Lateness,
    window::{
        TopicTotals, Totals,
        digest::{Digest, Tally, given_up},
        firsts::interpolate,
    },
};

impl Totals {
    pub(super) fn apply_receipt(&mut self, second: Second, head: &ReceiptHead, parts: &[(Topic, ReceiptPart)]) {
        self.run.domains.insert(head.domain);
        self.run.receiving_bound_ns = self.run.receiving_bound_ns.max(head.bound_ns);
        let digest = Digest::of(head, parts);
        let facts = self.seconds.facts_mut(second);
        facts.arrived += digest.receipt.messages;
        if digest.receipt.lateness.messages > 0 {
            facts
                .consumers_by_receipt
                .entry(head.daemon)
                .or_default()
                .add(digest.receipt.lateness);
        }
        self.mark(second, head, &digest, digest.receipt);
        for &(second, tally) in &digest.due {
            let facts = self.seconds.facts_mut(second);
            facts.received += tally.messages;
            if tally.lateness.messages > 0 {
                facts
                    .consumers_by_due
                    .entry(head.daemon)
                    .or_default()
                    .add(tally.lateness);
            }
            self.mark(second, head, &digest, tally);
        }
        self.course.record(second, parts);
        for (topic, part) in parts {
            self.apply_receipt_part(second, topic, part);
        }
    }

    fn mark(&mut self, second: Second, head: &ReceiptHead, digest: &Digest, tally: Tally) {
        let facts = self.seconds.facts_mut(second);
        facts.clock = facts.clock.worse(digest.doubt);
        facts.era_changed |= head.era_changed;
        facts.ack_limited |= head.ack_limited;
        facts.warmup += tally.warmup;
        facts.measured += tally.measured;
    }

    fn apply_receipt_part(&mut self, second: Second, topic: &Topic, part: &ReceiptPart) {
        let totals = self.topics.entry(topic.clone()).or_default();
        self.changed_topics.insert(topic.clone());
        totals.see(second);
        totals.count_receipt(part);
        for sample in part.samples.iter().filter(|sample| !sample.warmup) {
            let values = [sample.response_ns(), sample.transit_ns, sample.publish_delay_ns()];
            totals.response.record(values[0]);
            totals.transit.record(values[1]);
            totals.publish_delay.record(values[2]);
            self.run.response.record(values[0]);
            self.run.transit.record(values[1]);
            self.run.publish_delay.record(values[2]);
        }
        for &(second, count) in &part.dropped {
            totals.dropped += count;
            self.seconds.facts_mut(second).dropped += count;
        }
        let firsts = self.firsts.get(topic);
        let spread = |missing| firsts.map_or_else(|| interpolate(missing), |firsts| firsts.spread(missing));
        for missing in &part.missing {
            totals.missing.add(given_up(missing, missing.range.count()));
            for (second, count) in spread(missing) {
                self.seconds.facts_mut(second).missing.add(given_up(missing, count));
            }
        }
        for found in &part.found {
            totals.found.add(given_up(found, found.range.count()));
            for (second, count) in spread(found) {
                self.seconds.facts_mut(second).found.add(given_up(found, count));
            }
        }
    }

    pub(super) fn apply_send(&mut self, second: Second, head: &SendHead, parts: &[SendPart]) {
        self.run.domains.insert(head.domain);
        self.run.sending_bound_ns = self.run.sending_bound_ns.max(head.bound_ns);
        let facts = self.seconds.facts_mut(second);
        facts.sending_bound_ns = facts.sending_bound_ns.max(head.bound_ns);
        facts.era_changed |= head.era_changed;
        let lateness = Lateness {
            messages: head.messages,
            late: head.late,
            extreme: head.extreme,
        };
        if lateness != Lateness::default() {
            facts.producers.entry(head.daemon).or_default().add(lateness);
        }
        for part in parts {
            facts.scheduled += part.scheduled;
            facts.sent += part.sent;
            facts.unsent += part.unsent;
            if part.warmup {
                facts.warmup += part.scheduled.max(part.sent);
            } else {
                facts.measured += part.scheduled.max(part.sent);
            }
            let Some(device) = self.devices.get(&part.epoch) else {
                self.run.unknown_epochs += 1;
                continue;
            };
            let topic = &device.response_topic;
            self.changed_topics.insert(topic.clone());
            if let Some(first) = part.first_sequence {
                self.firsts
                    .entry(topic.clone())
                    .or_default()
                    .learn(part.epoch, second, first);
            }
            let totals = self.topics.entry(topic.clone()).or_default();
            totals.see(second);
            totals.count_send(part);
            if !part.warmup {
                totals.late.merge(&part.late);
                totals.ack.merge(&part.ack);
                totals.complete.merge(&part.complete);
                self.run.late.merge(&part.late);
                self.run.ack.merge(&part.ack);
                self.run.complete.merge(&part.complete);
            }
        }
    }
}

impl TopicTotals {
    /// What a part counts, without its samples' times, `dropped`, `missing` and `found`.
    pub(super) fn count_receipt(&mut self, part: &ReceiptPart) {
        self.received += part.samples.len() as u64;
        self.duplicates += part.duplicates;
        self.retained += part.retained;
        self.unstamped += part.unstamped;
        self.foreign += part.foreign;
        self.reordered += part.reordered;
    }

    pub(super) fn count_send(&mut self, part: &SendPart) {
        let count = |ranges: &[SeqRange]| ranges.iter().map(|range| range.count()).sum::<u64>();
        self.scheduled += part.scheduled;
        self.sent += part.sent;
        self.unsent += part.unsent;
        self.acked += part.acked;
        self.refused += count(&part.refused);
        self.unconfirmed += count(&part.unconfirmed);
    }
}
