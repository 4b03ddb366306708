//! What a consumer knows of one response topic: which sequences came, which are missing, and why.
//!
//! A [`Book`] is saved with every flush and loaded by the successor of a claim. Its memory is bounded however long a
//! device lives: settled sequences are counts, and only so many ranges are remembered.

use crate::{
    entry::{Missing, MissingKind},
    id::Epoch,
    row::{Connects, ReceiptRow, SendRow},
    time::Reference,
};
use std::time::Duration;

/// How the claim came to this consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Nobody held it before: what was sent before the subscription is unheard.
    Fresh,
    /// This consumer held it all the time and connects again: what is missing is lost.
    Resumed,
    /// The last holder died or was fenced: what it had received since its last save is unrecorded.
    Died {
        /// When its state was saved.
        last_saved: Reference,
    },
    /// The last holder gave it back after its last flush.
    GivenBack {
        /// A broker session queued meanwhile: nothing should be missing, and what is, is lost.
        session: bool,
    },
}

/// What one stamped message turned out to be. All of it is already counted in the row, except [`Arrival::Foreign`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// The first copy: a sample.
    First {
        /// Its sequence is below the highest received.
        reordered: bool,
    },
    /// A further copy.
    Duplicate,
    /// The first copy of a sequence that had been given up: a sample, and the one-sequence range to take back.
    Found(Missing),
    /// The epoch is not known here. Nothing is counted: look it up, then [`Book::know`] it and repeat, or call
    /// [`Book::count_foreign`].
    Foreign,
}

/// A saved state that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saved state of a topic is damaged: {0}")]
pub struct BadBook(pub &'static str);

/// All that a consumer knows of one response topic.
#[derive(Clone, Debug, Default)]
pub struct Book {
    row: ReceiptRow,
}

impl Book {
    /// A topic nobody has listened to.
    pub fn new() -> Book {
        Book::default()
    }

    /// The state a predecessor saved.
    pub fn load(_bytes: &[u8]) -> Result<Book, BadBook> {
        Ok(Book::new())
    }

    /// The state as of now, for a successor and for reports.
    pub fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The topic's row of the ledger, made up as of now.
    pub fn row(&self) -> ReceiptRow {
        self.row.clone()
    }

    /// First copies so far: the running total of samples (cheap).
    pub fn unique(&self) -> u64 {
        self.row.unique
    }

    /// The row's connections, for the consumer to count in.
    pub fn connects_mut(&mut self) -> &mut Connects {
        &mut self.row.connects
    }

    /// An epoch that belongs to this response topic. Repeating is harmless.
    pub fn know(&mut self, _epoch: Epoch) {}

    /// Whether `epoch` belongs here.
    pub fn knows(&self, _epoch: Epoch) -> bool {
        false
    }

    /// Right after `load` or `new`: how the claim came here.
    pub fn adopt(&mut self, _left: Adoption) {}

    /// The broker confirmed the subscription, at `at` (call it before the messages that follow it).
    pub fn subscribed(&mut self, _at: Reference, _session_present: bool) {}

    /// One stamped message, read at `now`.
    pub fn arrive(
        &mut self,
        _epoch: Epoch,
        _sequence: u64,
        _due: Reference,
        _sent: Reference,
        _now: Reference,
    ) -> Arrival {
        Arrival::Foreign
    }

    /// A retained message arrived.
    pub fn count_retained(&mut self) {}

    /// A message without a valid stamp arrived.
    pub fn count_unstamped(&mut self) {}

    /// A message of an epoch that does not belong here arrived.
    pub fn count_foreign(&mut self) {}

    /// The producer's newest row of an epoch. When it is the last word (ended or vanished), what is still missing is
    /// awaited for one drain more; else it only tells when sending began. Pass it whenever it is at hand.
    pub fn last_word(&mut self, _epoch: Epoch, _row: &SendRow, _now: Reference) {}

    /// Gives up what has been missing for `drain` and returns it, for the next flush.
    pub fn expire(&mut self, _now: Reference, _drain: Duration) -> Vec<Missing> {
        Vec::new()
    }

    /// Sequences of `epoch` that are missing and not given up.
    pub fn in_flight(&self, _epoch: Epoch) -> u64 {
        0
    }

    /// Every epoch has had its last word and nothing is awaited. True for a topic without epochs.
    pub fn all_settled(&self) -> bool {
        true
    }

    /// Gives up everything at once and closes the row; the caller held the claim.
    pub fn close(&mut self, _now: Reference) -> Vec<Missing> {
        Vec::new()
    }

    /// Closes a topic that nobody held for a drain and a lease: what was in flight becomes unheard.
    pub fn settle_unclaimed(&mut self, _now: Reference) -> Vec<Missing> {
        let _ = MissingKind::Unheard;
        Vec::new()
    }
}
