//! What a publisher is to send and what awaits an answer: all of it but the connection.

use std::{cell::Cell, collections::VecDeque, sync::Arc, task::Context};

use isochrone_model::{
    id::{Domain, Epoch},
    payload::{DeviceSeed, Payload},
    stamp::Stamp,
    time::{Clock, Monotonic},
};

use crate::{
    Disconnected, Offer, PublishEvent, PublisherConfig,
    mqtt::{
        codec::Accepted,
        frame::FrameTemplate,
        link::{self, Link},
        reason,
        window::{Entry, Phase, Window},
        wire::{self, Frame, packet},
    },
};

/// Messages a QoS 0 publisher takes between two flushes: nothing else bounds it.
const QOS0_ROOM: usize = 1024;

/// What is to be sent and what awaits an answer: all but the connection.
pub(super) struct Sender {
    frame: FrameTemplate,
    payload: Arc<Payload>,
    device: DeviceSeed,
    domain: Domain,
    epoch: Epoch,
    qos: u8,
    in_flight: usize,
    /// Offered, and no byte of them accepted yet.
    pending: VecDeque<Offer>,
    window: Window,
    /// Packet ids to send again on this connection, in order of sequence.
    again: VecDeque<u16>,
    /// The broker kept the session: what goes again is a duplicate.
    resumed: bool,
    /// PUBLISH packets the broker still takes before it answers (MQTT 5, 4.9).
    quota: usize,
    quota_limit: usize,
    /// The socket did not take the last write whole.
    blocked: bool,
}

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
    pub fn new(frame: FrameTemplate, config: PublisherConfig, domain: Domain) -> Sender {
        Sender {
            frame,
            payload: config.payload,
            device: config.device,
            domain,
            epoch: config.epoch,
            qos: config.qos,
            in_flight: config.in_flight.max(1),
            pending: VecDeque::new(),
            window: Window::new(config.in_flight),
            again: VecDeque::new(),
            resumed: false,
            quota: 0,
            quota_limit: 0,
            blocked: false,
        }
    }

    /// Whether nothing is offered that has not gone.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes one message.
    pub fn offer(&mut self, offer: Offer) {
        self.pending.push_back(offer);
    }

    /// Forgets what was offered and has not gone.
    pub fn drop_pending(&mut self) {
        self.pending = VecDeque::new();
    }

    /// The connection is gone.
    pub fn end(&mut self) {
        self.blocked = false;
    }

    /// QoS of all messages.
    pub fn qos(&self) -> u8 {
        self.qos
    }

    /// How many messages are in flight.
    pub fn in_flight(&self) -> usize {
        self.window.used()
    }

    /// Sequences without answer, oldest first.
    pub fn unanswered(&self) -> Vec<u64> {
        if self.qos == 0 {
            return Vec::new();
        }
        let mut sequences = self.window.unanswered();
        sequences.extend(self.pending.iter().map(|offer| offer.sequence));
        sequences
    }

    /// A connection came up.
    pub fn begin(&mut self, accepted: &Accepted) {
        self.resumed = accepted.session_present;
        if !self.resumed {
            self.window.renumber();
        }
        self.again = self.window.in_sequence().into();
        self.quota_limit = usize::from(accepted.receive_maximum);
        // The specification would let what is only to be released count for nothing; brokers count it all the same.
        self.quota = self.quota_limit.saturating_sub(self.window.released());
        self.blocked = false;
    }

    /// Gives back what an idle device does not need.
    pub fn shrink(&mut self) {
        self.window.shrink();
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
        if self.again.is_empty() {
            self.again = VecDeque::new();
        }
    }

    pub fn room(&self) -> usize {
        if self.blocked || !self.again.is_empty() {
            return 0;
        }
        let most = match self.qos {
            0 => QOS0_ROOM.min(self.in_flight.max(16)),
            _ => self.window.room().min(self.quota),
        };
        most.saturating_sub(self.pending.len())
    }

    /// Writes what goes again, then what is new, at most 64 KiB at once, until all is gone or the socket is full.
    pub fn write(
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

    /// Takes one frame from the broker.
    pub fn answer(
        &mut self,
        frame: Frame<'_>,
        at: Monotonic,
        out: &mut Vec<u8>,
        events: &mut Vec<PublishEvent>,
    ) -> Result<(), Disconnected> {
        let kind = frame.kind();
        if !matches!(kind, packet::PUBACK | packet::PUBREC | packet::PUBCOMP) {
            return Err(reason::protocol(format_args!("packet type {kind} to a publisher")));
        }
        let ack = frame.ack().map_err(reason::protocol)?;
        let phase = self.window.get_mut(ack.id).map(|entry| entry.phase);
        match (kind, phase) {
            (packet::PUBACK, Some(Phase::Published)) if self.qos == 1 => self.finish(ack, at, events),
            (packet::PUBREC, Some(Phase::Published)) if self.qos == 2 => {
                if ack.reason >= 0x80 {
                    self.finish(ack, at, events);
                    return Ok(());
                }
                if let Some(entry) = self.window.get_mut(ack.id) {
                    let (sequence, due, sent_monotonic) = (entry.sequence, entry.due, entry.sent_monotonic);
                    let unrouted = ack.reason == 0x10;
                    events.push(PublishEvent::Acked {
                        sequence,
                        due,
                        sent_monotonic,
                        at,
                        unrouted,
                    });
                    entry.phase = Phase::Released;
                    entry.sent_monotonic = at;
                }
                // PUBREL leaves in the write that follows this read; what is still to go again goes as PUBREL there.
                if !self.again.contains(&ack.id) {
                    wire::push_ack(out, packet::PUBREL, ack.id);
                }
            }
            // A repeated PUBREC, also of a message that we have forgotten: lets the broker finish.
            (packet::PUBREC, _) if ack.reason < 0x80 => wire::push_ack(out, packet::PUBREL, ack.id),
            (packet::PUBCOMP, Some(Phase::Released)) => {
                if let Some(entry) = self.window.remove(ack.id) {
                    self.quota = (self.quota + 1).min(self.quota_limit);
                    let Entry {
                        sequence,
                        due,
                        sent_monotonic: released,
                        ..
                    } = entry;
                    events.push(PublishEvent::Completed {
                        sequence,
                        due,
                        released,
                        at,
                    });
                }
            }
            // Answers to what is not in flight: brokers send them after a resume; they say nothing.
            _ => {}
        }
        Ok(())
    }

    /// PUBACK, or a PUBREC that ends the exchange.
    fn finish(&mut self, ack: wire::Ack, at: Monotonic, events: &mut Vec<PublishEvent>) {
        let Some(entry) = self.window.remove(ack.id) else {
            return;
        };
        self.quota = (self.quota + 1).min(self.quota_limit);
        let Entry {
            sequence,
            due,
            sent_monotonic,
            ..
        } = entry;
        events.push(match ack.reason {
            0x80.. => PublishEvent::Refused {
                sequence,
                due,
                reason: reason::refused(ack.reason),
            },
            other => PublishEvent::Acked {
                sequence,
                due,
                sent_monotonic,
                at,
                unrouted: other == 0x10,
            },
        });
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
