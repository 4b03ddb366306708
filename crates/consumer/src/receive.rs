//! From a delivery to a sample, or to the count of what else it was.

use isochrone_model::{
    entry::{ConsumerDelay, Sample},
    stamp::{self, Found, Stamp},
    time::{Monotonic, NANOS_PER_SECOND, Offset, Reference, Second},
    tracker::{Adoption, Arrival},
};
use isochrone_transport::{Connected, Deliveries, Delivery, Disconnected, SubscribeEvent};

use crate::{
    absence::Absences,
    buffer::{Ration, add_ranges},
    slice::{Claim, Received, Slice, Stage, Waiting},
};

/// Messages of epochs that the registry is being asked about, in one slice. Beyond it the oldest counts as foreign.
pub const WAITING: usize = 8_192;

/// Epochs known not to belong to a slice, so that a flood of foreign traffic asks the registry once.
const STRANGERS: usize = 4_096;

/// Takes what one connection hands over in one poll.
pub struct Receiver<'a> {
    /// Where it goes.
    pub slice: &'a mut Slice,
    /// The worker's bound on samples.
    pub ration: &'a mut Ration,
    /// When the worker was away.
    pub absences: &'a Absences,
    /// The connection's number in the slice.
    pub link: usize,
    /// From monotonic to reference time, in this poll.
    pub offset: Offset,
    /// What happened on the connection, for its owner.
    pub outcome: Outcome,
    /// The reference clock at the start of this poll.
    pub now: Reference,
    /// Start and number of the second that the newest message fell into, to save a division each.
    pub second: (Reference, Second),
}

/// What a poll brought beside messages.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Messages of any kind.
    pub messages: u64,
    /// A subscription was confirmed: the store wants to know.
    pub subscribed: bool,
    /// The registry must be asked for an epoch.
    pub unknown: bool,
    /// The connection came up.
    pub connected: bool,
    /// The connection is gone.
    pub disconnected: Option<Disconnected>,
    /// Subscriptions the broker refused: the topic and the line that says why.
    pub refused: Vec<(String, String)>,
}

impl Deliveries for Receiver<'_> {
    fn message(&mut self, message: Delivery<'_>) {
        self.outcome.messages += 1;
        let received = self.offset.at(message.received);
        if let Some(facts) = self.slice.links.get_mut(self.link) {
            facts.delivered = message.id;
            if facts.waits_for_store {
                let second = received.second();
                self.slice.facts_of(second).ack_limited = true;
            }
        }
        let Some(index) = self.slice.find(message.topic) else {
            self.slice.tally.stray += 1;
            return;
        };
        let second = self.second_of(received);
        if message.retained {
            self.slice.tally.retained += 1;
            if let Some(part) = self.slice.part(index, second) {
                part.retained += 1;
            }
            if let Some(claim) = self.slice.claim_mut(index) {
                claim.book.count_retained();
            }
            return;
        }
        match carried(&message) {
            Found::Stamp(stamp) => self.stamped(index, stamp, &message, received),
            Found::Broken | Found::Missing => {
                self.slice.tally.unstamped += 1;
                if let Some(part) = self.slice.part(index, second) {
                    part.unstamped += 1;
                }
                if let Some(claim) = self.slice.claim_mut(index) {
                    claim.book.count_unstamped();
                }
            }
        }
    }

    fn event(&mut self, event: SubscribeEvent) {
        match event {
            SubscribeEvent::Connected(connected) => self.connected(&connected),
            SubscribeEvent::Disconnected(disconnected) => {
                self.disconnected(&disconnected);
                self.outcome.disconnected = Some(disconnected);
            }
            SubscribeEvent::Subscribed { topic, at, suback_ns } => self.subscribed(&topic, at, suback_ns),
            SubscribeEvent::SubscribeRefused { topic, detail } => {
                self.refused(&topic);
                self.outcome.refused.push((topic.to_string(), detail));
            }
            SubscribeEvent::Closed => {}
        }
    }
}

/// The stamp of a message: in the property where there is one, else somewhere in the payload.
fn carried(message: &Delivery<'_>) -> Found {
    match message.property.map(stamp::from_property) {
        Some(Found::Stamp(stamp)) => Found::Stamp(stamp),
        _ => stamp::find(message.payload),
    }
}

impl Receiver<'_> {
    fn second_of(&mut self, received: Reference) -> Second {
        let (start, second) = self.second;
        let into = received.since_ns(start);
        if (0..NANOS_PER_SECOND).contains(&into) {
            return second;
        }
        let second = received.second();
        self.second = (second.start(), second);
        second
    }

    fn stamped(&mut self, index: usize, stamp: Stamp, message: &Delivery<'_>, received: Reference) {
        let same_domain = stamp.domain == self.slice.domain;
        let sent = if same_domain {
            stamp.sent_monotonic
        } else {
            self.offset.monotonic_at(stamp.sent)
        };
        let received = Received {
            monotonic: message.received,
            reference: received,
            bound_ns: if same_domain { 0 } else { self.offset.bound_ns },
            delay: self.absences.delay(sent, message.received),
        };
        let second = self.second_of(received.reference);
        let Some(claim) = self.slice.claim_mut(index) else {
            return;
        };
        if claim.book.knows(stamp.epoch) {
            let taken_over = claim
                .takeover
                .map_or(0, |takeover| takeover.absence_ns(stamp.sent, received.reference));
            let received = Received {
                delay: received.delay.max(self.absences.grade(taken_over)),
                ..received
            };
            self.slice.arrived(index, &stamp, &received, second, self.ration);
            return;
        }
        let token = claim.token;
        if self.slice.strangers.contains(&stamp.epoch) {
            self.slice.foreign(index, second);
            return;
        }
        if self.slice.waiting.len() >= WAITING
            && let Some(oldest) = self.slice.waiting.pop_front()
        {
            self.slice.foreign(oldest.claim, oldest.received.reference.second());
        }
        self.slice.waiting.push_back(Waiting {
            claim: index,
            token,
            stamp,
            received,
            link: self.link,
            delivery: message.id,
        });
        self.outcome.unknown = true;
    }

    fn connected(&mut self, connected: &Connected) {
        self.outcome.connected = true;
        if let Some(facts) = self.slice.links.get_mut(self.link) {
            facts.is_up = true;
        }
        self.slice.tally.connects += 1;
        let phases = [
            ("tcp", Some(connected.tcp_ns)),
            ("tls", connected.tls_ns),
            ("connack", Some(connected.connack_ns)),
        ];
        let now = self.offset.at(connected.at);
        if connected.session_present {
            // The broker kept the subscriptions and confirms none of them again.
            self.slice.each_subscribed(self.link, |claim| {
                claim.book.subscribed(now);
                claim.deaf_since = None;
            });
        }
        self.slice.count_connects(self.link, now, |connects| {
            connects.attempts += 1;
            for (phase, ns) in phases {
                if let Some(ns) = ns {
                    count_phase(connects, phase, ns);
                }
            }
        });
    }

    fn disconnected(&mut self, disconnected: &Disconnected) {
        let now = self.now;
        self.slice.tally.failed += 1;
        self.slice.each_subscribed(self.link, |claim| {
            claim.book.adopt(Adoption::Resumed);
            claim.deaf_since.get_or_insert(now);
        });
        let facts = self.slice.links.get_mut(self.link);
        let was_up = facts.is_some_and(|facts| std::mem::take(&mut facts.is_up));
        self.slice.count_connects(self.link, now, |connects| {
            // What ended a connection was no attempt.
            connects.attempts += u64::from(!was_up);
            connects.fail(disconnected.reason, now);
        });
    }

    fn refused(&mut self, topic: &str) {
        let Some(index) = self.slice.find(topic) else { return };
        if let Some(claim) = self.slice.claim_mut(index) {
            claim.book.connects_mut().refuse();
        }
        self.slice.touch(index);
    }

    fn subscribed(&mut self, topic: &str, at: Monotonic, suback_ns: u64) {
        let at = self.offset.at(at);
        let Some(index) = self.slice.find(topic) else { return };
        let Some(claim) = self.slice.claim_mut(index) else {
            return;
        };
        claim.subscribed_before = true;
        claim.deaf_since = None;
        claim.book.subscribed(at);
        count_phase(claim.book.connects_mut(), "suback", suback_ns);
        if let Some(takeover) = &mut claim.takeover
            && takeover.until.is_none()
        {
            takeover.until = Some(at);
        }
        if claim.stage == Stage::Subscribing {
            claim.stage = Stage::Subscribed;
            self.outcome.subscribed = true;
        }
        self.slice.touch(index);
    }
}

fn count_phase(connects: &mut isochrone_model::row::Connects, phase: &str, ns: u64) {
    let time = connects.phases.entry(phase.to_owned()).or_default();
    time.count += 1;
    time.sum_ns += ns;
    time.max_ns = time.max_ns.max(ns);
}

impl Slice {
    /// A stamped message of an epoch that belongs here.
    pub(crate) fn arrived(
        &mut self,
        index: usize,
        stamp: &Stamp,
        received: &Received,
        second: Second,
        ration: &mut Ration,
    ) {
        let Some(claim) = self.claims.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let arrival = claim
            .book
            .arrive(stamp.epoch, stamp.sequence, stamp.due, stamp.sent, received.reference);
        let (reordered, found) = match arrival {
            Arrival::First { reordered } => (reordered, None),
            Arrival::Found(missing) => (false, Some(missing)),
            Arrival::Duplicate => {
                self.tally.duplicates += 1;
                if let Some(part) = self.part(index, second) {
                    part.duplicates += 1;
                }
                return;
            }
            Arrival::Foreign => return self.foreign(index, second),
        };
        claim.total += 1;
        ration.held += 1;
        self.fresh += 1;
        self.tally.unique += 1;
        let same_domain = stamp.domain == self.domain;
        let transit_ns = if same_domain {
            received.monotonic.since_ns(stamp.sent_monotonic)
        } else {
            received.reference.since_ns(stamp.sent)
        };
        if !same_domain {
            let facts = self.facts_of(second);
            facts.bound_ns = facts.bound_ns.max(received.bound_ns);
        }
        let Some(part) = self.part(index, second) else { return };
        part.samples.push(Sample {
            epoch: stamp.epoch,
            sequence: stamp.sequence,
            due: stamp.due,
            sent: stamp.sent,
            received: received.reference,
            transit_ns,
            delay: received.delay,
            warmup: stamp.warmup,
        });
        part.reordered += u64::from(reordered);
        if let Some(found) = found {
            add_ranges(&mut part.found, [found]);
        }
    }

    /// A message of an epoch that does not belong to the topic it arrived on.
    pub(crate) fn foreign(&mut self, index: usize, second: Second) {
        self.tally.foreign += 1;
        if let Some(part) = self.part(index, second) {
            part.foreign += 1;
        }
        if let Some(claim) = self.claim_mut(index) {
            claim.book.count_foreign();
        }
    }

    /// Decides what waited for the registry and had been read before `asked_at`, when it was asked.
    pub fn decide(&mut self, asked_at: Monotonic, absences: &Absences, ration: &mut Ration) {
        let mut still = std::collections::VecDeque::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let Some(claim) = self.claims.get(waiting.claim).and_then(Option::as_ref) else {
                continue;
            };
            if claim.token != waiting.token {
                continue;
            }
            let second = waiting.received.reference.second();
            if claim.book.knows(waiting.stamp.epoch) {
                let takeover = claim.takeover;
                let taken_over = takeover.map_or(0, |takeover| {
                    takeover.absence_ns(waiting.stamp.sent, waiting.received.reference)
                });
                let received = Received {
                    delay: waiting.received.delay.max(absences.grade(taken_over)),
                    ..waiting.received
                };
                self.arrived(waiting.claim, &waiting.stamp, &received, second, ration);
            } else if waiting.received.monotonic <= asked_at {
                if self.strangers.len() >= STRANGERS {
                    self.strangers.clear();
                }
                self.strangers.insert(waiting.stamp.epoch);
                self.foreign(waiting.claim, second);
            } else {
                still.push_back(waiting);
            }
        }
        self.waiting = still;
    }

    /// Every claim that this connection has once been subscribed for.
    fn each_subscribed(&mut self, link: usize, act: impl FnMut(&mut Claim)) {
        let claims = self.claims.iter_mut().flatten();
        claims
            .filter(|claim| claim.link == link && claim.subscribed_before)
            .for_each(act);
    }

    fn count_connects(&mut self, link: usize, now: Reference, count: impl FnOnce(&mut isochrone_model::row::Connects)) {
        // A connection that many topics share is counted once, on the first of them.
        let shared = self
            .indices()
            .find(|(_, claim)| claim.link == link)
            .map(|(index, _)| index);
        let Some(index) = shared else { return };
        if let Some(claim) = self.claim_mut(index) {
            count(claim.book.connects_mut());
        }
        let _ = self.part(index, now.second());
    }
}

#[cfg(test)]
mod tests;

/// Makes sure that a delay grade orders as it must: the worst of two is their maximum.
const _: () = assert!((ConsumerDelay::Extreme as u8) > (ConsumerDelay::Late as u8));
