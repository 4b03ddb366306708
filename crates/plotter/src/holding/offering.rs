//! From cuts to sinks, from sinks to cursors.
//!
//! A cut that has no room in memory is read again when its sink has room for it, and left out where the store has dropped it
//! meanwhile for that sink.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use isochrone_model::window::{Totals, windows_of_cut};
use isochrone_sink::{
    Cut, Needs,
    runner::{Offer, Passed, Runner},
};
use isochrone_store::{
    Error,
    types::{Advance, Entry},
};
use tracing::{error, warn};

use super::{Desk, Holding, PAGE, account::Account};
use crate::{
    decode::{decode, samples},
    progress::Part,
};

/// A sink that is so many cuts behind makes us ask the store now and then whether some were dropped for it.
const FAR_BEHIND: u64 = 60;

impl Holding {
    /// Offers each sink the cuts it has not had.
    pub async fn offer(&mut self, desk: &Desk) -> Result<(), Error> {
        self.secure(desk);
        for runner in desk.sinks.runners() {
            match runner.needs() {
                Needs::Totals => self.offer_totals(runner),
                Needs::EveryCut => self.offer_cuts(desk, runner).await?,
            }
        }
        self.ask_for_the_slow();
        Ok(())
    }

    /// Also right after a takeover, when nothing is new to it: a page must show what was shown before.
    fn offer_totals(&mut self, runner: &Runner) {
        let newest = self.progress.newest();
        if newest == 0 || self.account(runner.name()).offered() == newest {
            return;
        }
        if runner.offer(Arc::new(self.newest_totals())) == Offer::Taken {
            self.account(runner.name()).offer(newest);
        }
    }

    async fn offer_cuts(&mut self, desk: &Desk, runner: &Runner) -> Result<(), Error> {
        if !self.progress.is_caught_up() {
            return Ok(());
        }
        let name = runner.name();
        loop {
            let had = self.account(name).had();
            let Some(part) = self.progress.after(had) else {
                return Ok(());
            };
            let number = part.cut.number;
            if number > self.secure || runner.is_full() {
                return Ok(());
            }
            let cut = match &part.entries {
                Some(entries) => self.whole_cut(part, entries),
                None => {
                    let entries = self.read_again(desk, part).await?;
                    let missing = part.ids.len() - entries.len();
                    let cut = self.whole_cut(part, &entries);
                    if missing > 0 && self.was_dropped(desk, name, number).await? {
                        continue;
                    }
                    if missing > 0 {
                        error!(run = %self.run, partition = %self.partition, cut = number, sink = name, missing,
                            "entries of a cut are gone from the store");
                    }
                    cut
                }
            };
            if runner.offer(Arc::new(cut)) == Offer::Full {
                return Ok(());
            }
            self.account(name).offer(number);
        }
    }

    /// The entries of a cut that are still in the store.
    async fn read_again(&self, desk: &Desk, part: &Part) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::with_capacity(part.ids.len());
        let (Some(first), Some(last)) = (part.ids.first(), part.ids.last()) else {
            return Ok(entries);
        };
        let mut after = first.before();
        while after < *last {
            let page = desk.store.entries(&self.run, self.partition, after, PAGE).await?;
            let Some(end) = page.last() else { break };
            after = end.id;
            let of_it = |entry: &Entry| part.ids.binary_search(&entry.id).is_ok();
            entries.extend(page.into_iter().filter(of_it));
        }
        Ok(entries)
    }

    /// Whether the store has dropped a cut for this sink, which moved its cursor past it.
    async fn was_dropped(&mut self, desk: &Desk, sink: &'static str, cut: u64) -> Result<bool, Error> {
        self.account(sink).ask();
        self.save(desk).await?;
        Ok(self.account(sink).passed() >= cut)
    }

    fn newest_totals(&self) -> Cut {
        self.cut_of(self.totals.clone())
    }

    fn whole_cut(&self, part: &Part, entries: &[Entry]) -> Cut {
        let entries: Vec<_> = entries.iter().filter_map(decode).collect();
        let mut counts = BTreeMap::new();
        for entry in &entries {
            samples(entry, &mut counts);
        }
        Cut {
            number: part.cut.number,
            second: part.cut.second,
            windows: windows_of_cut(&entries, self.totals.devices()),
            entries,
            samples: counts,
            ..self.cut_of(Arc::new(self.totals.outline()))
        }
    }

    fn cut_of(&self, totals: Arc<Totals>) -> Cut {
        Cut {
            run: self.run.clone(),
            partition: self.partition,
            number: self.progress.newest(),
            second: self.progress.newest_second().unwrap_or_default(),
            entries: Vec::new(),
            windows: Vec::new(),
            totals,
            samples: BTreeMap::new(),
            hold: self.hold.clone(),
        }
    }

    fn account(&mut self, sink: &str) -> &mut Account {
        if !self.accounts.contains_key(sink) {
            self.accounts.insert(sink.to_owned(), Account::default());
        }
        // It is there by now.
        self.accounts.entry(sink.to_owned()).or_default()
    }

    /// Whether a sink still has one of our cuts in hand.
    pub fn is_under_way(&self) -> bool {
        self.accounts
            .values()
            .any(|account| account.passed() < account.offered() && !account.is_refused(account.offered()))
    }

    /// Whether the newest running totals were refused by a back end.
    pub(super) fn is_refused(&self) -> bool {
        let newest = self.progress.newest();
        self.accounts.values().any(|account| account.is_refused(newest))
    }

    /// Nothing newer will come that could make refused running totals good.
    pub(super) async fn heed_refusals(&mut self, desk: &Desk) -> Result<(), Error> {
        if !self.is_refused() {
            return Ok(());
        }
        let newest = self.progress.newest();
        for runner in desk.sinks.runners().filter(|runner| runner.needs() == Needs::Totals) {
            let Some(account) = self.accounts.get_mut(runner.name()) else {
                continue;
            };
            let topics = self.totals.topics().iter();
            let received = topics.map(|(topic, totals)| (topic, totals.received));
            let samples = account.heed_refusal(newest, received);
            if samples > 0 {
                runner.counters().set_aside.fetch_add(samples, Ordering::Relaxed);
                warn!(run = %self.run, partition = %self.partition, sink = runner.name(), samples,
                    "set aside what the last running totals held");
            }
        }
        self.offer(desk).await?;
        self.save(desk).await
    }

    /// Whether nothing is left to do with what is read: all is cut, and every sink, those of other plotters included, has had it.
    pub fn is_done(&self) -> bool {
        let newest = self.progress.newest();
        !self.has_waiting() && self.accounts.values().all(|account| account.passed() >= newest)
    }

    /// Whether a sink of this plotter has not had the newest cut yet.
    pub fn is_behind(&self, desk: &Desk) -> bool {
        let newest = self.progress.newest();
        let passed = |name: &str| self.accounts.get(name).map_or(0, Account::passed);
        desk.sinks.runners().any(|runner| passed(runner.name()) < newest)
    }

    /// A sink is done with a cut: its cursor moves to it.
    pub fn passed(&mut self, desk: &Desk, passed: &Passed) {
        let Some(runner) = desk.sinks.runners().find(|runner| runner.name() == passed.sink) else {
            return;
        };
        // A straggler from before the partition was lost and taken again tells of cuts that the store may have forgotten.
        if !passed.cut.hold.is(&self.hold) {
            return;
        }
        let account = self.account(passed.sink);
        let Some(delivery) = &passed.delivery else {
            account.refuse(passed.cut.number);
            return;
        };
        match runner.needs() {
            Needs::Totals => {
                let topics = passed.cut.totals.topics().iter();
                account.show(
                    passed.cut.number,
                    topics.map(|(topic, totals)| (topic, totals.received)),
                );
            }
            Needs::EveryCut => account.deliver(passed.cut.number, delivery),
        }
    }

    /// A sink that takes nothing tells of nothing either: what was dropped for it shows only in the store.
    fn ask_for_the_slow(&mut self) {
        let newest = self.progress.newest();
        if newest < self.asked_at + FAR_BEHIND {
            return;
        }
        self.asked_at = newest;
        for account in self
            .accounts
            .values_mut()
            .filter(|account| account.passed() + FAR_BEHIND < newest)
        {
            account.ask();
        }
    }

    /// Stores the cursors that moved and deletes what all have passed.
    pub async fn save(&mut self, desk: &Desk) -> Result<(), Error> {
        loop {
            // Cursors of sinks that this plotter does not have count too: their own plotter may come back.
            let all = self.accounts.values().map(Account::passed).min().unwrap_or(0);
            let mut unsaved = self
                .accounts
                .iter_mut()
                .filter(|(_, account)| account.to_save().is_some());
            let Some((sink, account)) = unsaved.next() else {
                return Ok(());
            };
            let Some((cursor, known)) = account.to_save() else {
                return Ok(());
            };
            // Entries go with the last cursor that passes them, in one step: before, they are counted as pending.
            let last = unsaved.next().is_none();
            let delete = if last { self.progress.passed(all) } else { Vec::new() };
            let advance = Advance {
                sink,
                cursor,
                known,
                delete: &delete,
            };
            let moved = desk
                .store
                .advance(&self.run, self.partition, desk.daemon, self.token, advance)
                .await?;
            if let Some(theirs) = moved {
                let samples = account.catch_up(theirs);
                warn!(run = %self.run, partition = %self.partition, sink, samples,
                    "what a slow sink held back was dropped for it (ISOCHRONE_RETAIN)");
                continue;
            }
            account.saved();
            if last {
                self.progress.forget(all);
            }
        }
    }
}
