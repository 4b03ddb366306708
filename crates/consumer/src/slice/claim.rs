//! One response topic that is held: its token, its book, and how far it has come.

use isochrone_model::{
    id::{Token, Topic},
    time::{Monotonic, Reference},
    tracker::{Adoption, Book},
};
use isochrone_store::types::{Claimed, Left};

use crate::buffer::Pending;

/// Instead of the number of a connection: there is none.
pub const NO_LINK: usize = usize::MAX;

/// One response topic held.
pub struct Claim {
    /// The response topic.
    pub topic: Topic,
    /// Fences what is written of it.
    pub token: Token,
    /// All that is known of it.
    pub book: Book,
    /// First copies so far in this topic's life.
    pub total: u64,
    /// The connection it is heard on, or [`NO_LINK`].
    pub link: usize,
    /// Where it stands.
    pub stage: Stage,
    /// When it was taken.
    pub taken_at: Monotonic,
    /// Devices that share it, as far as known.
    pub devices: usize,
    pub(crate) pending: Pending,
    pub(crate) touched: bool,
    pub(crate) takeover: Option<Takeover>,
    pub(crate) subscribed_before: bool,
    /// No subscription stands, since then.
    pub(crate) deaf_since: Option<Reference>,
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The broker has not confirmed the subscription.
    Subscribing,
    /// It has; the store has not been told.
    Subscribed,
    /// The producer may send.
    Ready,
    /// Settled or given back: what is left is the last flush.
    Leaving,
}

/// The time nobody listened between two holders.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    pub from: Reference,
    pub until: Option<Reference>,
}

impl Claim {
    /// As the registry hands it over, heard on connection `link`.
    pub fn new(claimed: &Claimed, link: usize, now: (Monotonic, Reference)) -> Claim {
        let loaded = claimed.state.as_deref().map(Book::load).transpose();
        let mut book = match loaded {
            Ok(book) => book.unwrap_or_default(),
            Err(problem) => {
                tracing::error!(topic = %claimed.topic, "failed to read what the last holder saved: {problem}; counting anew");
                Book::new()
            }
        };
        let last_saved = claimed.state.as_ref().map_or(Reference(0), |_| book.row().saved_at);
        book.adopt(match claimed.left {
            Left::Never => Adoption::Fresh,
            Left::GivenBack { session } => Adoption::GivenBack { session },
            Left::Died => Adoption::Died { last_saved },
        });
        for device in &claimed.devices {
            book.know(device.device.epoch);
            book.last_word(device.device.epoch, &device.row, now.1);
        }
        let takeover = match claimed.left {
            Left::Never => None,
            Left::GivenBack { .. } => Some(claimed.left_at),
            Left::Died => Some(last_saved),
        };
        Claim {
            topic: claimed.topic.clone(),
            token: claimed.token,
            book,
            total: claimed.stored + claimed.dropped,
            link,
            stage: Stage::Subscribing,
            taken_at: now.0,
            devices: claimed.devices.len(),
            pending: Pending::default(),
            touched: false,
            takeover: takeover.map(|from| Takeover { from, until: None }),
            subscribed_before: false,
            deaf_since: Some(now.1),
        }
    }
}

impl Takeover {
    /// How long nobody listened, when a message sent at `sent` and received at `received` was under way in it.
    pub fn absence_ns(self, sent: Reference, received: Reference) -> u64 {
        let until = self.until.unwrap_or(received);
        if sent < until && received > self.from {
            until.since_ns(self.from).max(0) as u64
        } else {
            0
        }
    }
}
