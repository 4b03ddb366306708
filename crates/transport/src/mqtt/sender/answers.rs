//! What the broker says of messages in flight.

use isochrone_model::time::Monotonic;

use super::Sender;
use crate::{
    Disconnected, PublishEvent,
    mqtt::{
        reason,
        window::{Entry, Phase},
        wire::{self, Frame, packet},
    },
};

impl Sender {
    /// Takes one frame from the broker.
    pub(in crate::mqtt) fn answer(
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
