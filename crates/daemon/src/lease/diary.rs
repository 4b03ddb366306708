//! What one daemon sees happen to itself in one run, for the report: kept until the store has it.

use std::{collections::VecDeque, fmt};

use isochrone_model::{
    id::{DaemonId, RunName},
    time::{Clock, Reference, unsigned_nanos},
};
use isochrone_store::{
    Error, Fate, Store,
    lease::ANSWER_WITHIN,
    types::{Note, NoteKind},
};
use tokio::time::{Duration, Instant, error::Elapsed, timeout_at};

use crate::clock::SystemClock;

/// Notes that wait for the store; beyond it the newest are only counted, and the log has them.
const WAITING: usize = 64;
/// Absences told of in one run: an overloaded host has more than anybody reads.
const ABSENCES: u32 = 50;

/// See the module.
pub struct Diary {
    daemon: DaemonId,
    waiting: VecDeque<Note>,
    /// What found no room, and how many of it the store has been told of.
    omitted: u64,
    told: u64,
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
            omitted: 0,
            told: 0,
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
            let late_ns = unsigned_nanos(late);
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
            self.add(NoteKind::StoreAway, at, unsigned_nanos(since.elapsed()));
        }
    }

    /// Another life of the store's server answers.
    pub fn new_server(&mut self, now: Reference) {
        self.add(NoteKind::NewServer, now, 0);
    }

    /// Tells the store one thing that it has not got, before `until`; whether that is done with. Leases are renewed by the same
    /// task: a store that is slow must not hold them up.
    pub async fn deliver_one(&mut self, store: &dyn Store, run: &RunName, until: Instant) -> bool {
        let until = until.min(Instant::now() + ANSWER_WITHIN);
        if let Some(note) = self.waiting.front() {
            let done = Diary::said(timeout_at(until, store.note(run, note)).await, run, note.what);
            if done {
                self.waiting.pop_front();
            }
            return done;
        }
        if self.omitted == self.told {
            return false;
        }
        let total = self.omitted;
        let done = Diary::said(
            timeout_at(until, store.omit(run, self.daemon, total)).await,
            run,
            "what found no room",
        );
        if done {
            self.told = total;
        }
        done
    }

    /// Tells the store the rest, while it answers.
    pub async fn deliver(&mut self, store: &dyn Store, run: &RunName) {
        while self.deliver_one(store, run, Instant::now() + ANSWER_WITHIN).await {}
    }

    /// Whether there is no more to do about it.
    fn said(answer: Result<Result<(), Error>, Elapsed>, run: &RunName, what: impl fmt::Debug) -> bool {
        match answer {
            Ok(Ok(())) => true,
            Ok(Err(error)) if error.fate() == Fate::Reject => {
                tracing::warn!(%run, "failed to {error}; the report will not tell of {what:?}");
                true
            }
            _ => false,
        }
    }

    fn add(&mut self, what: NoteKind, at: Reference, lasted_ns: u64) {
        tracing::info!(?what, lasted_ns, "noted for the report");
        if self.waiting.len() == WAITING {
            self.omitted += 1;
            return;
        }
        self.waiting.push_back(Note {
            daemon: self.daemon,
            what,
            at,
            lasted_ns,
        });
    }
}

#[cfg(test)]
mod tests {
    use isochrone_store::{
        Registry,
        memory::MemoryStore,
        types::{OpenRun, Pins},
    };

    use super::*;

    /// What waits is told one by one, what found no room as a number after it, and nothing twice.
    #[tokio::test]
    async fn notes_are_told_one_by_one() {
        let store = MemoryStore::new(SystemClock::alone(None));
        let request = OpenRun {
            run: None,
            pins: Pins {
                schema: 1,
                partitions: 1,
                claim_unit: "topic".to_owned(),
            },
            keep: Duration::from_secs(60),
        };
        let run = store.open_run(&request).await.unwrap().run;
        let mut diary = Diary::new(DaemonId(1));
        for at in 0..WAITING as i64 + 6 {
            diary.new_server(Reference(at));
        }
        let soon = || Instant::now() + Duration::from_secs(5);
        for told in 1..=2 {
            assert!(diary.deliver_one(&*store, &run, soon()).await);
            let (notes, omitted) = store.notes(&run).await.unwrap();
            assert_eq!((notes.len(), omitted), (told, 0));
        }
        diary.deliver(&*store, &run).await;
        let (notes, omitted) = store.notes(&run).await.unwrap();
        assert_eq!((notes.len(), omitted), (WAITING, 6));
        assert!(!diary.deliver_one(&*store, &run, soon()).await);
    }
}
