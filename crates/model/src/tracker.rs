//! What a consumer knows of one response topic: which sequences came, which are missing, and why.
//!
//! A [`Book`] is saved with every flush and loaded by the successor of a claim. Its memory is bounded however long a
//! device lives: settled sequences are counts, and only so many ranges are remembered.

mod codec;
mod given;
mod point;
#[cfg(test)]
mod tests;
mod track;

use std::{collections::HashMap, time::Duration};

use crate::{
    entry::{Missing, MissingKind},
    id::{DaemonId, Epoch},
    row::{Connects, ReceiptRow, SendRow, Takeover},
    time::Reference,
    tracker::{
        point::Point,
        track::{Step, Track, Window},
    },
};

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
    /// The first copy of a sequence that had been given up: a sample too, and the one-sequence range to take back.
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
    /// Without its epochs: those are in `tracks`.
    row: ReceiptRow,
    tracks: Vec<Track>,
    index: HashMap<Epoch, usize>,
    /// Where the last message's track is: most messages come from the device that sent the one before.
    current: usize,
    /// What epochs that come to be known find.
    window: Option<Window>,
    /// Adopted, and not subscribed since: waiting has no meaning yet.
    deaf: bool,
}

impl Book {
    /// A topic nobody has listened to.
    pub fn new() -> Book {
        Book::default()
    }

    /// The state a predecessor saved.
    pub fn load(bytes: &[u8]) -> Result<Book, BadBook> {
        codec::load(bytes)
    }

    /// The state as of now, for a successor and for reports.
    pub fn save(&self) -> Vec<u8> {
        codec::save(self)
    }

    /// The topic's row of the ledger, made up as of now.
    pub fn row(&self) -> ReceiptRow {
        let epochs = self.tracks.iter().map(|track| (track.epoch, track.row())).collect();
        ReceiptRow {
            epochs,
            ..self.row.clone()
        }
    }

    /// First copies so far: the running total of samples (cheap).
    pub fn unique(&self) -> u64 {
        self.row.unique
    }

    /// The row's connections, for the consumer to count in.
    pub fn connects_mut(&mut self) -> &mut Connects {
        &mut self.row.connects
    }

    /// This consumer goes on where a holder died.
    pub fn taken_over(&mut self, by: DaemonId, at: Reference) {
        let takeovers = &mut self.row.takeovers;
        if takeovers.len() >= ReceiptRow::MAX_TAKEOVERS {
            takeovers.remove(0);
        }
        takeovers.push(Takeover { by, at });
    }

    /// An epoch that belongs to this response topic. Repeating is harmless.
    pub fn know(&mut self, epoch: Epoch) {
        let next = self.tracks.len();
        let window = self.window;
        self.index.entry(epoch).or_insert_with(|| {
            self.tracks.push(Track::new(epoch, window));
            next
        });
    }

    /// Whether `epoch` belongs here.
    pub fn knows(&self, epoch: Epoch) -> bool {
        self.index.contains_key(&epoch)
    }

    /// Right after `load` or `new`: how the claim came here. Nothing is given up from here to [`Book::subscribed`].
    pub fn adopt(&mut self, left: Adoption) {
        self.deaf = true;
        let kind = match left {
            Adoption::Fresh | Adoption::GivenBack { session: false } => MissingKind::Unheard,
            Adoption::Died { .. } => MissingKind::Unrecorded,
            // What the broker queued still comes; if it does not, the target lost it.
            Adoption::Resumed | Adoption::GivenBack { session: true } => return,
        };
        let window = Window { kind, until: None };
        self.window = Some(window);
        self.tracks.iter_mut().for_each(|track| track.adopt(window));
    }

    /// The broker confirmed the subscription, at `at`; also after every reconnect. Waits start anew. A session that
    /// was promised and is not present changes nothing: what it held is lost.
    pub fn subscribed(&mut self, at: Reference) {
        self.deaf = false;
        if let Some(window) = &mut self.window {
            window.until.get_or_insert(at);
        }
        self.tracks.iter_mut().for_each(|track| track.subscribed(at));
    }

    /// One stamped message, read at `now`.
    pub fn arrive(&mut self, epoch: Epoch, sequence: u64, due: Reference, sent: Reference, now: Reference) -> Arrival {
        // No device sends so many: a forged or foreign stamp, and nothing counts beyond it.
        if sequence == u64::MAX {
            return Arrival::Foreign;
        }
        if self.tracks.get(self.current).is_none_or(|track| track.epoch != epoch) {
            match self.index.get(&epoch) {
                Some(&at) => self.current = at,
                None => return Arrival::Foreign,
            }
        }
        let Some(track) = self.tracks.get_mut(self.current) else {
            return Arrival::Foreign;
        };
        self.row.arrived += 1;
        self.row.saved_at = now;
        match track.arrive(Point { sequence, due, sent }, now) {
            Step::First { reordered } => {
                self.row.unique += 1;
                self.row.reordered += u64::from(reordered);
                Arrival::First { reordered }
            }
            Step::Duplicate => {
                self.row.duplicate += 1;
                Arrival::Duplicate
            }
            Step::Found { missing, reordered } => {
                self.row.unique += 1;
                self.row.reordered += u64::from(reordered);
                Arrival::Found(missing)
            }
        }
    }

    /// A retained message arrived.
    pub fn count_retained(&mut self) {
        self.row.arrived += 1;
        self.row.retained += 1;
    }

    /// A message without a valid stamp arrived.
    pub fn count_unstamped(&mut self) {
        self.row.arrived += 1;
        self.row.unstamped += 1;
    }

    /// A message of an epoch that does not belong here arrived.
    pub fn count_foreign(&mut self) {
        self.row.arrived += 1;
        self.row.foreign += 1;
    }

    /// The producer's newest row of an epoch. When it is the last word (ended or vanished), what is still missing is
    /// awaited for one drain more; else it only tells when sending began. Pass it whenever it is at hand: with it,
    /// what is missing at the very beginning is told apart exactly. An unknown epoch becomes known.
    pub fn last_word(&mut self, epoch: Epoch, row: &SendRow, now: Reference) {
        self.know(epoch);
        self.row.saved_at = self.row.saved_at.max(now);
        if let Some(track) = self.index.get(&epoch).and_then(|&at| self.tracks.get_mut(at)) {
            track.hear(row, now);
        }
    }

    /// Gives up what has been missing for `drain` and returns it, for the next flush.
    pub fn expire(&mut self, now: Reference, drain: Duration) -> Vec<Missing> {
        self.row.saved_at = self.row.saved_at.max(now);
        if self.deaf {
            return Vec::new();
        }
        self.tracks
            .iter_mut()
            .flat_map(|track| track.expire(now, drain))
            .collect()
    }

    /// Sequences of `epoch` that are missing and not given up.
    pub fn in_flight(&self, epoch: Epoch) -> u64 {
        self.index
            .get(&epoch)
            .and_then(|&at| self.tracks.get(at))
            .map_or(0, Track::in_flight)
    }

    /// Every epoch has had its last word, or has been silent for a drain since its producer vanished, and nothing is awaited.
    /// True for a topic without epochs.
    pub fn all_settled(&self) -> bool {
        self.tracks.iter().all(Track::settled)
    }

    /// Every epoch has had its last word, and that it sent nothing. False for a topic without epochs.
    pub fn is_of_nothing(&self) -> bool {
        let sent_nothing = |track: &Track| track.end.is_some_and(|end| end.is_final && end.total == 0);
        !self.tracks.is_empty() && self.tracks.iter().all(sent_nothing)
    }

    /// When the last of the epochs' last words was heard; `None` while one is missing, or without epochs.
    pub fn last_words_at(&self) -> Option<Reference> {
        let heard: Option<Vec<Reference>> = self.tracks.iter().map(|track| Some(track.end?.at)).collect();
        heard?.into_iter().max()
    }

    /// Gives up everything at once and closes the row; the caller held the claim.
    pub fn close(&mut self, now: Reference) -> Vec<Missing> {
        self.row.saved_at = self.row.saved_at.max(now);
        self.row.closed = true;
        let give_up = |track: &mut Track| {
            track.open_tail();
            track.give_up_all()
        };
        self.tracks.iter_mut().flat_map(give_up).collect()
    }

    /// Closes a topic that nobody held for a drain and a lease: what was in flight becomes unheard.
    pub fn settle_unclaimed(&mut self, now: Reference) -> Vec<Missing> {
        self.tracks.iter_mut().for_each(Track::forsake);
        self.close(now)
    }
}
