//! What producer and consumer store of a topic.

use bytes::Bytes;
use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch, Partition, Token, Topic},
    time::Second,
};
use isochrone_store::types::{EntryKind, NewEntry, NewPart};

pub const PRODUCER: DaemonId = DaemonId(101);
pub const CONSUMER: DaemonId = DaemonId(102);

/// A topic of one device, which the consumer has claimed.
pub struct Held {
    pub topic: Topic,
    pub partition: Partition,
    pub token: Token,
    pub epoch: Epoch,
    /// Messages so far.
    pub count: u64,
}

impl Held {
    /// What the producer stores of three more messages.
    pub fn sends(&self, second: Second) -> NewEntry {
        let mut late = Histogram::default();
        late.record_n(10_000, 3);
        let part = SendPart {
            epoch: self.epoch,
            scheduled: 3,
            sent: 3,
            acked: 3,
            first_sequence: Some(self.count),
            late,
            ..SendPart::default()
        };
        let head = SendHead {
            daemon: PRODUCER,
            domain: Domain(1),
            messages: 3,
            late: 0,
            extreme: 0,
            bound_ns: 0,
            era_changed: false,
        };
        let part = NewPart {
            key: self.epoch.to_string(),
            token: Token(0),
            samples: 0,
            body: Bytes::from(part.encode()),
        };
        NewEntry {
            kind: EntryKind::Send,
            second,
            head: Bytes::from(head.encode()),
            parts: vec![part],
        }
    }

    /// What the consumer stores of them.
    pub fn receipts(&self, second: Second) -> NewEntry {
        let due = second.start();
        let samples = (0..3).map(|n| Sample {
            epoch: self.epoch,
            sequence: self.count + n,
            due,
            sent: due + 10_000,
            received: due + 110_000,
            transit_ns: 100_000,
            delay: ConsumerDelay::None,
            warmup: false,
        });
        let part = ReceiptPart {
            samples: samples.collect(),
            ..ReceiptPart::default()
        };
        let head = ReceiptHead {
            daemon: CONSUMER,
            domain: Domain(1),
            bound_ns: 0,
            era_changed: false,
            ack_limited: false,
            absences: Vec::new(),
        };
        let part = NewPart {
            key: self.topic.to_string(),
            token: self.token,
            samples: 3,
            body: Bytes::from(part.encode()),
        };
        NewEntry {
            kind: EntryKind::Receipt,
            second,
            head: Bytes::from(head.encode()),
            parts: vec![part],
        }
    }
}
