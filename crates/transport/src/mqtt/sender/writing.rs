//! From what is offered to bytes on the connection: frames, stamps, and what went.

use std::{cell::Cell, task::Context};

use isochrone_model::{
    stamp::Stamp,
    time::{Clock, Monotonic},
};

use super::Sender;
use crate::{
    Disconnected, Offer, PublishEvent,
    mqtt::{
        link::{self, Link},
        window::{Entry, Phase},
        wire::{self, packet},
    },
};

/// One frame of a write.
#[derive(Clone, Copy)]
struct Written {
    start: usize,
    stamp_at: Option<usize>,
    id: u16,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    New,
    Again,
    Release,
}

thread_local! {
    /// The frames of the write under way; one list serves all connections of a worker.
    static WRITTEN: Cell<Vec<Written>> = const { Cell::new(Vec::new()) };
}

impl Sender {
    /// Writes what goes again, then what is new, at most 64 KiB at once, until all is gone or the socket is full.
    pub(in crate::mqtt) fn write(
        &mut self,
        link: &mut Link,
        cx: &mut Context<'_>,
        clock: &dyn Clock,
        buffer: &mut Vec<u8>,
        events: &mut Vec<PublishEvent>,
    ) -> Result<(), Disconnected> {
        self.blocked = false;
        let mut written = WRITTEN.take();
        let result = loop {
            match link.flush(cx, clock) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            buffer.clear();
            written.clear();
            self.render(buffer, &mut written, link.max_packet, clock, events);
            if buffer.is_empty() {
                break Ok(());
            }
            let now = clock.monotonic();
            self.stamp(buffer, &written, now);
            let accepted = match link.write(cx, buffer, now) {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.settle(&written, 0, now, events);
                    break Err(error);
                }
            };
            let end = self.settle(&written, accepted, now, events).unwrap_or(buffer.len());
            link.tail().extend_from_slice(&buffer[accepted.min(end)..end]);
            if accepted == 0 {
                self.blocked = true;
                break Ok(());
            }
        };
        WRITTEN.set(written);
        result
    }

    /// Appends frames to `buffer`: at least one where there is one, else as many as fit.
    fn render(
        &mut self,
        buffer: &mut Vec<u8>,
        written: &mut Vec<Written>,
        max_packet: usize,
        clock: &dyn Clock,
        events: &mut Vec<PublishEvent>,
    ) {
        let mut again = 0;
        let mut quota = self.quota;
        while let Some(&id) = self.again.get(again) {
            let Some(&mut entry) = self.window.get_mut(id) else {
                // Answered in the meantime.
                self.again.remove(again);
                continue;
            };
            let start = buffer.len();
            let one = if entry.phase == Phase::Released {
                wire::push_ack(buffer, packet::PUBREL, id);
                Written {
                    start,
                    stamp_at: None,
                    id,
                    kind: Kind::Release,
                }
            } else if quota == 0 {
                return;
            } else {
                quota -= 1;
                let sequence = entry.sequence;
                let stamp_at = self
                    .frame
                    .render(buffer, &self.payload, &self.device, sequence, id, self.resumed);
                Written {
                    start,
                    stamp_at,
                    id,
                    kind: Kind::Again,
                }
            };
            if buffer.len() > link::WRITE && !written.is_empty() {
                buffer.truncate(start);
                return;
            }
            written.push(one);
            again += 1;
        }
        let mut new = 0;
        while let Some(&offer) = self.pending.get(new) {
            let id = if self.qos == 0 {
                0
            } else if quota == 0 {
                return;
            } else {
                match self.window.reserve() {
                    Some(id) => id,
                    None => return,
                }
            };
            let start = buffer.len();
            let stamp_at = self
                .frame
                .render(buffer, &self.payload, &self.device, offer.sequence, id, false);
            let too_large = buffer.len() - start > max_packet;
            if too_large || (buffer.len() > link::WRITE && !written.is_empty()) {
                buffer.truncate(start);
                if self.qos > 0 {
                    self.window.cancel(id);
                }
                if too_large && new == 0 {
                    self.pending.pop_front();
                    refuse_here(offer, clock, events);
                    continue;
                }
                return;
            }
            written.push(Written {
                start,
                stamp_at,
                id,
                kind: Kind::New,
            });
            quota = quota.saturating_sub(usize::from(self.qos > 0));
            new += 1;
        }
    }

    /// Patches the stamps: those of new messages with `now`, those of others with what they had.
    fn stamp(&mut self, buffer: &mut [u8], written: &[Written], now: Monotonic) {
        let mut new = 0;
        for one in written {
            let entry = match one.kind {
                Kind::Release => continue,
                Kind::New => {
                    let Some(offer) = self.pending.get(new) else { return };
                    new += 1;
                    Entry::published(offer, now)
                }
                Kind::Again => match self.window.get_mut(one.id) {
                    Some(entry) => *entry,
                    None => continue,
                },
            };
            if let Some(at) = one.stamp_at {
                let stamp = Stamp {
                    domain: self.domain,
                    epoch: self.epoch,
                    sequence: entry.sequence,
                    warmup: entry.warmup,
                    due: entry.due,
                    sent: entry.sent,
                    sent_monotonic: entry.sent_monotonic,
                };
                self.frame.patch(buffer, at, &stamp);
            }
        }
    }

    /// Books the frames of which `accepted` bytes went out; returns where the first that did not go at all begins.
    fn settle(
        &mut self,
        written: &[Written],
        accepted: usize,
        now: Monotonic,
        events: &mut Vec<PublishEvent>,
    ) -> Option<usize> {
        let went = written.partition_point(|one| one.start < accepted);
        for one in &written[..went] {
            match one.kind {
                Kind::Release => drop(self.again.pop_front()),
                Kind::Again => {
                    self.again.pop_front();
                    self.quota = self.quota.saturating_sub(1);
                    if let Some(entry) = self.window.get_mut(one.id) {
                        events.push(PublishEvent::Retransmitted {
                            sequence: entry.sequence,
                        });
                    }
                }
                Kind::New => {
                    let Some(offer) = self.pending.pop_front() else { break };
                    if self.qos > 0 {
                        self.quota = self.quota.saturating_sub(1);
                        self.window.insert(one.id, Entry::published(&offer, now));
                    }
                    events.push(PublishEvent::Sent {
                        sequence: offer.sequence,
                        due: offer.due,
                        sent: offer.sent_at(now),
                        sent_monotonic: now,
                    });
                }
            }
        }
        for one in written[went..].iter().rev() {
            if one.kind == Kind::New && self.qos > 0 {
                self.window.cancel(one.id);
            }
        }
        written.get(went).map(|one| one.start)
    }
}

/// A message larger than the broker takes is refused without a byte of it on the wire: the broker would end the connection.
fn refuse_here(offer: Offer, clock: &dyn Clock, events: &mut Vec<PublishEvent>) {
    let now = clock.monotonic();
    let Offer { sequence, due, .. } = offer;
    events.push(PublishEvent::Sent {
        sequence,
        due,
        sent: offer.sent_at(now),
        sent_monotonic: now,
    });
    events.push(PublishEvent::Refused {
        sequence,
        due,
        reason: "packet too large",
    });
}
