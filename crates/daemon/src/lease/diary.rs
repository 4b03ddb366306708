//! What one daemon sees happen to itself in one run, for the report: kept until the store has it.

use std::collections::VecDeque;

use isochrone_model::{
    id::{DaemonId, RunName},
    time::{Clock, Reference},
};
use isochrone_store::{
    Fate, Store,
    types::{Note, NoteKind},
};
use tokio::time::{Duration, Instant, timeout};

use crate::clock::SystemClock;

/// Notes that wait for the store; beyond it the newest are dropped, and the log has them.
const WAITING: usize = 64;
/// Absences told of in one run: an overloaded host has more than anybody reads.
const ABSENCES: u32 = 50;
/// A note unanswered for this long is sent again.
const ANSWER: Duration = Duration::from_millis(500);

/// See the module.
pub struct Diary {
    daemon: DaemonId,
    waiting: VecDeque<Note>,
    absences: u32,
    era: Option<u32>,
    store_away: Option<(Reference, Instant)>,
}

impl Diary {
    /// How late a timer must be to tell of an absence.
    pub const LATE: Duration = Duration::from_millis(250);

    pub fn new(daemon: DaemonId) -> Diary {
        Diary {
            daemon,
            waiting: VecDeque::new(),
            absences: 0,
            era: None,
            store_away: None,
        }
    }

    /// A timer fired so late; also sees whether the reference clock began a new era.
    pub fn woke(&mut self, late: Duration, clock: &SystemClock) {
        let now = clock.reference();
        if late > Diary::LATE && self.absences < ABSENCES {
            self.absences += 1;
            let late_ns = nanos(late);
            self.add(NoteKind::Away, now + -(late_ns as i64), late_ns);
        }
        let era = clock.offset().era;
        if self.era.replace(era).is_some_and(|known| known != era) {
            self.add(NoteKind::NewEra, now, 0);
        }
    }

    /// The store does not answer.
    pub fn store_away(&mut self, now: Reference) {
        self.store_away.get_or_insert_with(|| (now, Instant::now()));
    }

    /// It answers again.
    pub fn store_back(&mut self) {
        if let Some((at, since)) = self.store_away.take() {
            self.add(NoteKind::StoreAway, at, nanos(since.elapsed()));
        }
    }

    /// Another life of the store's server answers.
    pub fn new_server(&mut self, now: Reference) {
        self.add(NoteKind::NewServer, now, 0);
    }

    /// Tells the store what it has not got.
    pub async fn deliver(&mut self, store: &dyn Store, run: &RunName) {
        while let Some(note) = self.waiting.front() {
            match timeout(ANSWER, store.note(run, note)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.fate() == Fate::Reject => {
                    tracing::warn!(%run, "failed to {error}; the report will not tell of {:?}", note.what);
                }
                _ => return,
            }
            self.waiting.pop_front();
        }
    }

    fn add(&mut self, what: NoteKind, at: Reference, lasted_ns: u64) {
        tracing::info!(?what, lasted_ns, "noted for the report");
        if self.waiting.len() < WAITING {
            self.waiting.push_back(Note {
                daemon: self.daemon,
                what,
                at,
                lasted_ns,
            });
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
