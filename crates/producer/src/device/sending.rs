//! From the schedule to the connection: what is due is queued, what is queued is offered, what is offered is written.

use isochrone_model::time::{Monotonic, nanos};
use isochrone_transport::{Offer, PublishEvent};

use super::{Emulated, Moment, Pace, Phase, Place, Wants};

/// Messages a device without a rate offers before others get their turn.
pub(super) const FLAT_OUT_TURN: usize = 256;

impl Emulated {
    /// Takes every place that is due by now out of the schedule; answers when the next one is due. At the end of the
    /// schedule the device begins to drain and [`deadline`](Emulated::deadline) changes.
    ///
    /// A device without a rate has no places; [`send`](Emulated::send) makes them.
    pub fn collect(&mut self, moment: Moment) -> Option<Monotonic> {
        if self.phase != Phase::Running || self.flat_out() {
            return None;
        }
        while let Some(slot) = &self.next {
            let due_monotonic = self.origin + slot.at_ns;
            if due_monotonic > moment.now {
                return Some(due_monotonic);
            }
            let full = self.queue.len() >= self.limits.queue;
            if full && self.has_room() {
                // Only we were away: send first, then go on collecting.
                return Some(moment.now);
            }
            let warmup = slot.warmup;
            let due = moment.offset.at(due_monotonic);
            self.account.scheduled(due, warmup);
            // Full: the newest place is given up, so that order and the oldest due time stay.
            if full {
                self.account.unsent(due);
            } else {
                if self.queue.len() == self.queue.capacity() {
                    // By a quarter, not by the whole: long queues of many devices are most of an overload's memory.
                    let more = (self.queue.len() / 4).max(4).min(self.limits.queue - self.queue.len());
                    self.queue.reserve_exact(more);
                }
                self.queue.push_back(Place {
                    due,
                    due_monotonic,
                    ready: moment.now,
                    warmup,
                });
            }
            self.step();
        }
        self.drain(moment.now);
        None
    }

    /// Offers what is queued while the connection takes it, and writes it.
    pub fn send(&mut self, moment: Moment, events: &mut Vec<PublishEvent>) -> Wants {
        let mut wants = Wants::default();
        // A long queue takes several turns of the connection's room.
        while self.offered == 0 && self.offer_queued() + self.offer_flat_out(moment) > 0 {
            self.flush(moment, events, &mut wants);
            if self.flat_out() {
                break;
            }
        }
        if self.offer_queued() > 0 {
            self.flush(moment, events, &mut wants);
        }
        self.settle(moment.now, &mut wants);
        wants
    }

    fn flush(&mut self, moment: Moment, events: &mut Vec<PublishEvent>, wants: &mut Wants) {
        let Some(publisher) = &mut self.publisher else { return };
        publisher.flush(events);
        let applied = self.apply(events, moment, true);
        wants.first_connected |= applied.first_connected;
        wants.trouble = applied.trouble.or(wants.trouble.take());
        // What the socket did not take is the poll's to write; and a device without a rate always has more.
        wants.poll |= self.offered > 0 || self.flat_out();
    }

    fn has_room(&self) -> bool {
        let waiting = self.queue.len() > self.offered;
        waiting && self.publisher.as_ref().is_some_and(|publisher| publisher.room() > 0)
    }

    fn offer_queued(&mut self) -> usize {
        let Some(publisher) = &mut self.publisher else { return 0 };
        let waiting = self.queue.len() - self.offered;
        if waiting == 0 || !matches!(self.phase, Phase::Running | Phase::Draining) {
            return 0;
        }
        let taken = waiting.min(publisher.room());
        for place in self.queue.range(self.offered..self.offered + taken) {
            publisher.offer(Offer {
                sequence: self.next_sequence,
                due: place.due,
                due_monotonic: place.due_monotonic,
                warmup: place.warmup,
            });
            self.next_sequence += 1;
        }
        self.offered += taken;
        taken
    }

    /// Rate `max`: due is the moment of sending, and there is never a queue.
    fn offer_flat_out(&mut self, moment: Moment) -> usize {
        let Some(Pace::FlatOut { count, warmup, .. }) = self.pace else {
            return 0;
        };
        let Some(publisher) = &mut self.publisher else { return 0 };
        if self.phase != Phase::Running || moment.now < self.origin || self.offered > 0 {
            return 0;
        }
        let left = count.map_or(u64::MAX, |count| count.saturating_sub(self.account.row().scheduled));
        let taken = publisher
            .room()
            .min(FLAT_OUT_TURN)
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let in_warmup = moment.now.since_ns(self.origin) < nanos(warmup);
        let due = moment.offset.at(moment.now);
        for _ in 0..taken {
            self.account.scheduled(due, in_warmup);
            self.queue.push_back(Place {
                due,
                due_monotonic: moment.now,
                ready: moment.now,
                warmup: in_warmup,
            });
            publisher.offer(Offer {
                sequence: self.next_sequence,
                due,
                due_monotonic: moment.now,
                warmup: in_warmup,
            });
            self.next_sequence += 1;
        }
        self.offered += taken;
        if taken as u64 == left {
            self.drain(moment.now);
        }
        taken
    }
}
