//! What a publisher is to send and what awaits an answer: all of it but the connection.

mod answers;
mod writing;

use std::{collections::VecDeque, sync::Arc};

use isochrone_model::{
    id::{Domain, Epoch},
    payload::{DeviceSeed, Payload},
};

use crate::{
    Offer, PublisherConfig,
    mqtt::{codec::Accepted, frame::FrameTemplate, window::Window},
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
    /// Packet ids to send again on this connection, in the order of [`Window::to_resume`].
    again: VecDeque<u16>,
    /// The broker kept the session: what goes again is a duplicate.
    resumed: bool,
    /// PUBLISH packets the broker still takes before it answers (MQTT 5, 4.9).
    quota: usize,
    quota_limit: usize,
    /// The socket did not take the last write whole.
    blocked: bool,
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
        self.again = self.window.to_resume().into();
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
}
