//! What the connection says, in the device's account.

use isochrone_transport::PublishEvent;

use super::{Emulated, Moment, Phase, Wants};

impl Emulated {
    /// Counts what happened. `just_offered`: the events come from the write that directly followed the offering.
    pub(super) fn apply(&mut self, events: &mut Vec<PublishEvent>, moment: Moment, just_offered: bool) -> Wants {
        let mut wants = Wants::default();
        for event in events.drain(..) {
            match event {
                PublishEvent::Sent {
                    sequence,
                    due,
                    sent,
                    sent_monotonic,
                } => {
                    let Some(place) = self.queue.pop_front() else { continue };
                    self.offered = self.offered.saturating_sub(1);
                    // Nothing of theirs lay between: the whole way to the socket was ours. Else ours ended when it was ready.
                    let ready = if just_offered && moment.now == place.ready {
                        sent_monotonic
                    } else {
                        place.ready
                    };
                    self.account
                        .sent(sequence, due, sent, ready.since_ns(place.due_monotonic));
                    if self.phase == Phase::Closing && !self.account.answered() {
                        self.unanswered.push(sequence);
                    }
                }
                PublishEvent::Acked {
                    sequence,
                    due,
                    sent_monotonic,
                    at,
                    unrouted,
                } => {
                    self.account.acked(due, at.since_ns(sent_monotonic), unrouted);
                    self.unanswered.retain(|&other| other != sequence);
                }
                PublishEvent::Completed { due, released, at, .. } => {
                    self.account.completed(due, at.since_ns(released));
                }
                PublishEvent::Refused { sequence, due, reason } => {
                    wants.refused = Some(reason);
                    self.account.refused(sequence, due);
                    self.unanswered.retain(|&other| other != sequence);
                }
                PublishEvent::Retransmitted { .. } => self.account.retransmitted(),
                PublishEvent::Connected(connected) => {
                    self.connected = true;
                    if !connected.session_present {
                        self.account.session_lost();
                    }
                    self.account.connected(&connected);
                    wants.first_connected |= !self.ever_connected;
                    self.ever_connected = true;
                }
                PublishEvent::Disconnected(disconnected) => {
                    self.account
                        .disconnected(&disconnected, self.connected, moment.offset.at(moment.now));
                    self.connected = false;
                    wants.trouble = Some(Box::new(disconnected));
                }
                PublishEvent::Closed => {}
            }
        }
        wants
    }
}
