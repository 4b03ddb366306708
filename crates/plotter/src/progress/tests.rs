//! The cut rules against random histories.

use std::collections::BTreeMap;

use bytes::Bytes;
use isochrone_model::id::DaemonId;
use isochrone_store::types::{EntryKind, NewEntry};
use proptest::prelude::*;

use super::*;

/// What happens to a partition.
#[derive(Clone, Debug)]
enum Event {
    /// An entry of a second is written.
    Write(i64),
    /// The plotter reads at most so many entries.
    Read(usize),
    /// It cuts seconds up to this; whether the answer came back does not matter.
    Cut(i64),
    /// All sinks have passed so many of the open cuts.
    Pass(u64),
    /// It dies after its cut was stored or before; a successor takes over.
    Die(Before),
}

#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    Storing(i64),
    Hearing(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let second = 0..12i64;
    let event = prop_oneof![
        5 => second.clone().prop_map(Event::Write),
        3 => (0..6usize).prop_map(Event::Read),
        3 => second.clone().prop_map(Event::Cut),
        1 => (0..3u64).prop_map(Event::Pass),
        1 => prop_oneof![
            Just(Before::Nothing),
            second.clone().prop_map(Before::Storing),
            second.prop_map(Before::Hearing)
        ]
        .prop_map(Event::Die),
    ];
    prop::collection::vec(event, 0..200)
}

/// Few entries fit into memory, so that parts are kept, let go, and found short of some.
const ROOM: usize = 700;

/// The store's side: what is atomic there.
#[derive(Default)]
struct Partition {
    stream: BTreeMap<EntryId, Entry>,
    cuts: Vec<Cut>,
    passed: u64,
    written: u64,
    /// What each cut held when it was stored: the first telling.
    held: BTreeMap<u64, Vec<EntryId>>,
}

impl Partition {
    fn write(&mut self, second: i64) {
        self.written += 1;
        let id = EntryId(self.written / 3, self.written % 3);
        let entry = NewEntry {
            kind: EntryKind::Receipt,
            second: Second(second),
            head: Bytes::new(),
            parts: Vec::new(),
        };
        self.stream.insert(
            id,
            Entry {
                id,
                daemon: DaemonId(1),
                batch: self.written,
                entry,
            },
        );
    }

    fn read(&self, after: EntryId, limit: usize) -> Vec<Entry> {
        self.stream
            .values()
            .filter(|entry| entry.id > after)
            .take(limit)
            .cloned()
            .collect()
    }

    fn feed(&self, plotter: &mut Progress, limit: usize) {
        let page = self.read(plotter.read_to(), limit);
        let end = page.len() < limit;
        plotter.take_in(page);
        if end {
            plotter.reached_end();
        }
    }

    fn cut(&mut self, proposal: &Proposal) {
        assert_eq!(proposal.cut.number, self.cuts.last().map_or(0, |cut| cut.number) + 1);
        self.cuts.push(proposal.cut);
        let ids = proposal.entries.iter().map(|entry| entry.id).collect();
        assert!(self.held.insert(proposal.cut.number, ids).is_none());
    }

    fn pass(&mut self, cut: u64, delete: &[EntryId]) {
        self.passed = self.passed.max(cut);
        let newest = self.cuts.last().map_or(0, |cut| cut.number);
        self.cuts.retain(|cut| cut.number > self.passed || cut.number == newest);
        for id in delete {
            self.stream.remove(id);
        }
    }

    /// A plotter that takes over.
    fn successor(&self) -> Progress {
        Progress::resume(&self.cuts, ROOM)
    }
}

proptest! {
    /// Whatever happens in whichever order, with plotters dying at any point: every entry is in exactly one cut, a cut that is
    /// replayed holds the same entries in the same order, nothing is deleted that a sink still needs, and in the end nothing
    /// is left. What is kept in memory of it is bounded, and whole.
    #[test]
    fn every_entry_is_in_one_cut(events in events()) {
        let mut store = Partition::default();
        let mut plotter = store.successor();
        for event in events {
            match event {
                Event::Write(second) => store.write(second),
                Event::Read(limit) => store.feed(&mut plotter, limit),
                Event::Cut(second) => {
                    if let Some(proposal) = plotter.propose(Second(second)) {
                        store.cut(&proposal);
                        plotter.stored(proposal);
                    }
                }
                Event::Pass(count) => {
                    let cut = (store.passed + count).min(plotter.newest());
                    // A cut is passed when its entries are known: sinks cannot be done with what they were not given.
                    store.feed(&mut plotter, usize::MAX);
                    store.pass(cut, &plotter.passed(cut));
                    plotter.forget(cut);
                }
                Event::Die(before) => {
                    match before {
                        Before::Nothing => {}
                        Before::Storing(second) => drop(plotter.propose(Second(second))),
                        Before::Hearing(second) => {
                            if let Some(proposal) = plotter.propose(Second(second)) {
                                store.cut(&proposal);
                            }
                        }
                    }
                    plotter = store.successor();
                }
            }
            check_replay(&store, &plotter)?;
        }
        // The run ends: everything is cut and passed.
        store.feed(&mut plotter, usize::MAX);
        if let Some(second) = plotter.waiting_to()
            && let Some(proposal) = plotter.propose(second)
        {
            store.cut(&proposal);
            plotter.stored(proposal);
        }
        store.pass(plotter.newest(), &plotter.passed(plotter.newest()));
        prop_assert!(store.stream.is_empty());
        let mut all: Vec<_> = store.held.values().flatten().copied().collect();
        all.sort_unstable();
        let written: Vec<_> = (1..=store.written).map(|n| EntryId(n / 3, n % 3)).collect();
        prop_assert_eq!(all, written);
    }
}

/// A successor that reads the whole stream finds in each cut that is not passed what was in it when it was stored.
fn check_replay(store: &Partition, plotter: &Progress) -> Result<(), TestCaseError> {
    let mut successor = store.successor();
    store.feed(&mut successor, usize::MAX);
    let mut had = store.passed;
    while let Some(part) = successor.after(had) {
        prop_assert_eq!(&part.ids, &store.held[&part.cut.number]);
        had = part.cut.number;
    }
    prop_assert_eq!(had, successor.newest().max(store.passed));
    check_room(&successor)?;
    check_room(plotter)?;
    prop_assert_eq!(successor.newest(), store.cuts.last().map_or(0, |cut| cut.number));
    prop_assert!(plotter.newest() <= successor.newest());
    Ok(())
}

/// A part has all its entries or none, and all of them together fit.
fn check_room(progress: &Progress) -> Result<(), TestCaseError> {
    let mut kept = 0;
    for part in &progress.parts {
        let Some(entries) = &part.entries else { continue };
        prop_assert_eq!(&entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), &part.ids);
        kept += entries.iter().map(bytes).sum::<usize>();
    }
    prop_assert_eq!(kept, progress.kept_bytes);
    prop_assert!(kept <= ROOM);
    Ok(())
}

/// A late entry falls into a later cut, an early one waits for its second.
#[test]
fn late_and_early_entries() {
    let mut store = Partition::default();
    let mut plotter = store.successor();
    store.write(5);
    store.write(7);
    plotter.take_in(store.read(EntryId::default(), 9));
    let first = plotter.propose(Second(5)).unwrap();
    assert_eq!(
        first.cut,
        Cut {
            number: 1,
            last: EntryId(0, 2),
            second: Second(5)
        }
    );
    assert_eq!(first.entries.len(), 1);
    plotter.stored(first);
    store.write(4);
    plotter.take_in(store.read(plotter.read_to(), 9));
    // The reference clock fell back: bounds do not.
    let second = plotter.propose(Second(3)).unwrap();
    assert_eq!(
        second.cut,
        Cut {
            number: 2,
            last: EntryId(1, 0),
            second: Second(5)
        }
    );
    assert_eq!(
        second
            .entries
            .iter()
            .map(|entry| entry.entry.second)
            .collect::<Vec<_>>(),
        [Second(4)]
    );
    plotter.stored(second);
    assert!(plotter.propose(Second(6)).is_none(), "nothing waits up to there");
    assert_eq!(plotter.propose(Second(7)).unwrap().entries.len(), 1);
}
