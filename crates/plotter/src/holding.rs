//! One partition that this plotter holds: from stored entries to cuts, from cuts to sinks, from sinks to cursors.
//!
//! The order is what makes a crash harmless: a cut is stored with the state that includes it before any sink sees it, a cursor
//! moves after its sink has it, entries go with the last cursor. Every step can be repeated.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use isochrone_daemon::telemetry::TARGET;
use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Token},
    time::Second,
    window::{CutEntry, Totals, windows_of_cut},
};
use isochrone_sink::{
    Cut, Hold, Needs,
    runner::{Offer, Passed},
};
use isochrone_store::{
    Error, Store,
    types::{Cursor, Entry, NewCut, PlotterClaim, TopicStatus},
};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use crate::{
    decode::{decode, epochs, samples},
    progress::{Part, Progress, Proposal},
    sinks::Sinks,
};

/// Entries read in one call: at 1,000 samples of 8 bytes each, 2 MiB at the most.
pub const PAGE: usize = 256;

/// What may wait for its second in memory; more is cut before its time, as a part of its own, which is never wrong.
const WAITING_BYTES: usize = 8 << 20;

/// Device lives asked for in vain that are remembered, so that foreign ones do not cause a look-up with every cut.
const STRANGERS: usize = 10_000;

/// What all partitions work with.
pub struct Desk {
    /// The store.
    pub store: Arc<dyn Store>,
    /// This plotter.
    pub daemon: DaemonId,
    /// Its sinks.
    pub sinks: Sinks,
    /// ISOCHRONE_RETAIN, of a run.
    pub retain: u64,
}

/// A held partition.
pub struct Holding {
    run: RunName,
    partition: Partition,
    token: Token,
    hold: Hold,
    progress: Progress,
    totals: Arc<Totals>,
    /// By sink: as the store has it or, where named in `unsaved`, will have it.
    cursors: BTreeMap<String, Cursor>,
    unsaved: Vec<String>,
    /// By sink: the newest cut it was offered.
    offered: BTreeMap<&'static str, u64>,
    pending: Option<Pending>,
    strangers: HashSet<Epoch>,
    taken_at: Instant,
    stored_at: BTreeMap<u64, Instant>,
}

/// A cut on its way into the store.
struct Pending {
    proposal: Proposal,
    decoded: Vec<CutEntry>,
    /// Set once the entries are applied; from then on only this may be stored.
    new: Option<NewCut>,
}

/// The fields of the cumulative hash that belong to a sink begin with this and its name; the others are the totals'.
pub const SINK_FIELDS: &str = "sink:";

fn field_prefix(sink: &str) -> String {
    format!("{SINK_FIELDS}{sink}:")
}

impl Holding {
    /// Takes the partition if nobody holds it (or this plotter already does) and goes on where its last holder stood.
    /// `hold` says whether its lease is valid.
    pub async fn take(
        desk: &Desk,
        run: &RunName,
        partition: Partition,
        partitions: u16,
        hold: Hold,
    ) -> Result<Option<Holding>, Error> {
        let Some(claim) = desk
            .store
            .hold(run, partition, desk.daemon, &desk.sinks.names())
            .await?
        else {
            return Ok(None);
        };
        desk.store
            .retain(run, partition, desk.retain / u64::from(partitions.max(1)))
            .await?;
        let mut holding = Holding::resume(desk, run, partition, claim, hold)?;
        // Cuts that the last holder stored are built again for sinks that have not had them: the same, so with the same devices.
        if holding.progress.newest() > 0 {
            holding.know_devices(desk).await?;
        }
        Ok(Some(holding))
    }

    fn resume(
        desk: &Desk,
        run: &RunName,
        partition: Partition,
        claim: PlotterClaim,
        hold: Hold,
    ) -> Result<Holding, Error> {
        let fields = claim
            .cumulative
            .into_iter()
            .map(|(field, bytes)| (field, bytes.to_vec()));
        let (of_sinks, of_totals): (Vec<_>, Vec<_>) = fields.partition(|(field, _)| field.starts_with(SINK_FIELDS));
        let corrupt = |cause: String| Error::Corrupt {
            key: format!("cumulative state of {run}:{partition}"),
            cause,
        };
        let totals = Totals::load(of_totals).map_err(|bad| corrupt(bad.to_string()))?;
        for sink in desk.sinks.each() {
            let prefix = field_prefix(sink.name());
            let own = of_sinks
                .iter()
                .filter_map(|(field, bytes)| Some((field.strip_prefix(&prefix)?.to_owned(), bytes.clone())));
            sink.recall(run, partition, &own.collect::<Vec<_>>());
        }
        Ok(Holding {
            run: run.clone(),
            partition,
            token: claim.token,
            hold,
            progress: Progress::resume(&claim.cuts),
            totals: Arc::new(totals),
            cursors: claim.cursors.into_iter().collect(),
            unsaved: Vec::new(),
            offered: BTreeMap::new(),
            pending: None,
            strangers: HashSet::new(),
            taken_at: Instant::now(),
            stored_at: BTreeMap::new(),
        })
    }

    /// Whether anything was ever written here.
    pub fn has_data(&self) -> bool {
        self.progress.newest() > 0 || self.progress.waiting_to().is_some() || self.pending.is_some()
    }

    /// Whether something is read that no cut holds.
    pub fn has_waiting(&self) -> bool {
        self.progress.waiting_to().is_some() || self.pending.is_some()
    }

    /// Takes one page of entries as [`Holding::read`] gave it and cuts what is of seconds up to `second`; reads on while there
    /// is more. Then offers cuts to sinks and stores the cursors they moved.
    pub async fn step(&mut self, desk: &Desk, mut page: Vec<Entry>, second: Second) -> Result<(), Error> {
        loop {
            let more = page.len() >= PAGE;
            self.progress.take_in(page);
            if !more {
                self.progress.reached_end();
            }
            self.cut(desk, second).await?;
            if self.progress.waiting_bytes() > WAITING_BYTES
                && let Some(newest) = self.progress.waiting_to()
            {
                self.cut(desk, newest).await?;
            }
            if !more {
                break;
            }
            page = self.read(desk).await?;
        }
        self.offer(desk);
        self.save(desk).await
    }

    /// The next page.
    pub async fn read(&self, desk: &Desk) -> Result<Vec<Entry>, Error> {
        desk.store
            .entries(&self.run, self.partition, self.progress.read_to(), PAGE)
            .await
    }

    /// When every topic is closed nothing can follow: cuts all there is without waiting for its second.
    pub async fn drain(&mut self, desk: &Desk) -> Result<(), Error> {
        if !self.has_waiting() {
            return Ok(());
        }
        let topics = desk.store.topics(&self.run, self.partition).await?;
        if topics.iter().any(|topic| topic.status != TopicStatus::Closed) {
            return Ok(());
        }
        // What was written before the last topic closed must be in it.
        let page = self.read(desk).await?;
        let newest = page.iter().map(|entry| entry.entry.second).max();
        let Some(second) = self.progress.waiting_to().max(newest).or(self.progress.newest_second()) else {
            return Ok(());
        };
        self.step(desk, page, second).await
    }

    /// Cuts everything that was ever written: the run is closed.
    pub async fn finish(&mut self, desk: &Desk) -> Result<(), Error> {
        loop {
            let page = self.read(desk).await?;
            let newest = page.iter().map(|entry| entry.entry.second).max();
            let last = page.len() < PAGE;
            if let Some(second) = self.progress.waiting_to().max(newest).or(self.progress.newest_second()) {
                self.step(desk, page, second).await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn cut(&mut self, desk: &Desk, second: Second) -> Result<(), Error> {
        loop {
            // A step that failed left its cut here; it goes first, as it was.
            let mut pending = match self.pending.take() {
                Some(pending) => pending,
                None => {
                    let Some(proposal) = self.progress.propose(second) else {
                        return Ok(());
                    };
                    let decoded = proposal.entries.iter().filter_map(decode).collect();
                    Pending {
                        proposal,
                        decoded,
                        new: None,
                    }
                }
            };
            let way = debug_span!(target: TARGET, "cut", run = %self.run, partition = %self.partition,
                cut = pending.proposal.cut.number, second = pending.proposal.cut.second.0,
                entries = pending.decoded.len());
            if let Err(error) = self.store_cut(desk, &mut pending).instrument(way).await {
                self.pending = Some(pending);
                return Err(error);
            }
            self.stored_at.insert(pending.proposal.cut.number, Instant::now());
            self.progress.stored(pending.proposal);
        }
    }

    async fn store_cut(&mut self, desk: &Desk, pending: &mut Pending) -> Result<(), Error> {
        let cut = pending.proposal.cut;
        let new = match pending.new.take() {
            Some(new) => new,
            None => {
                self.learn_devices(desk, &pending.decoded).await?;
                let totals = Arc::make_mut(&mut self.totals);
                for entry in &pending.decoded {
                    totals.apply(entry);
                }
                let mut changed: Vec<_> = totals
                    .changed()
                    .into_iter()
                    .map(|(field, bytes)| (field, Bytes::from(bytes)))
                    .collect();
                for sink in desk.sinks.each() {
                    let prefix = field_prefix(sink.name());
                    let kept = sink.keep(&self.run, self.partition, cut.second, totals);
                    changed.extend(
                        kept.into_iter()
                            .map(|(field, bytes)| (prefix.clone() + &field, Bytes::from(bytes))),
                    );
                }
                NewCut { cut, changed }
            }
        };
        let new = pending.new.insert(new);
        desk.store
            .cut(&self.run, self.partition, desk.daemon, self.token, new)
            .await
    }

    /// Entries are counted by the registration of their device life, which was there before its first message.
    async fn learn_devices(&mut self, desk: &Desk, entries: &[CutEntry]) -> Result<(), Error> {
        let unknown = |epoch: &Epoch| !self.totals.knows(*epoch) && !self.strangers.contains(epoch);
        if !entries.iter().flat_map(epochs).any(|epoch| unknown(&epoch)) {
            return Ok(());
        }
        self.know_devices(desk).await?;
        if self.strangers.len() > STRANGERS {
            self.strangers.clear();
        }
        self.strangers.extend(
            entries
                .iter()
                .flat_map(epochs)
                .filter(|epoch| !self.totals.knows(*epoch)),
        );
        Ok(())
    }

    /// Registrations are not in the saved totals.
    async fn know_devices(&mut self, desk: &Desk) -> Result<(), Error> {
        let devices = desk.store.devices(&self.run, self.partition).await?;
        let totals = Arc::make_mut(&mut self.totals);
        for state in &devices {
            totals.know_device(&state.device);
        }
        Ok(())
    }

    /// Offers each sink the cuts it has not had.
    pub fn offer(&mut self, desk: &Desk) {
        let newest = self.progress.newest();
        for runner in desk.sinks.runners() {
            let name = runner.name();
            let passed = self.cursors.get(name).map_or(0, |cursor| cursor.cut);
            match runner.needs() {
                Needs::Totals => {
                    // Also right after a takeover, when nothing is new to it: a page must show what was shown before.
                    let had = self.offered.get(name).copied();
                    if newest > 0 && had != Some(newest) && runner.offer(Arc::new(self.newest_totals())) == Offer::Taken
                    {
                        self.offered.insert(name, newest);
                    }
                }
                Needs::EveryCut => {
                    let had = self.offered.get(name).copied().unwrap_or(0).max(passed);
                    for part in self.progress.after(had) {
                        let age = self.stored_at.get(&part.cut.number).unwrap_or(&self.taken_at).elapsed();
                        if age < desk.store.memory() || runner.offer(Arc::new(self.whole_cut(part))) == Offer::Full {
                            break;
                        }
                        self.offered.insert(name, part.cut.number);
                    }
                }
            }
        }
    }

    fn newest_totals(&self) -> Cut {
        Cut {
            run: self.run.clone(),
            partition: self.partition,
            number: self.progress.newest(),
            second: self.progress.newest_second().unwrap_or_default(),
            entries: Vec::new(),
            windows: Vec::new(),
            totals: self.totals.clone(),
            samples: BTreeMap::new(),
            hold: self.hold.clone(),
        }
    }

    fn whole_cut(&self, part: &Part) -> Cut {
        let entries: Vec<_> = part.entries.iter().filter_map(decode).collect();
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
            ..self.newest_totals()
        }
    }

    /// Whether a sink still has one of our cuts in hand.
    pub fn is_under_way(&self) -> bool {
        let passed = |name: &str| self.cursors.get(name).map_or(0, |cursor| cursor.cut);
        self.offered.iter().any(|(name, offered)| passed(name) < *offered)
    }

    /// Whether a sink has not had the newest cut yet.
    pub fn is_behind(&self, desk: &Desk) -> bool {
        let newest = self.progress.newest();
        let passed = |name: &str| self.cursors.get(name).map_or(0, |cursor| cursor.cut);
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
        let cursor = self.cursors.entry(passed.sink.to_owned()).or_default();
        if passed.cut.number <= cursor.cut {
            return;
        }
        cursor.cut = passed.cut.number;
        match runner.needs() {
            // Its state holds all there ever was, save what was gone before it joined.
            Needs::Totals => {
                for (topic, totals) in passed.cut.totals.topics() {
                    if totals.received > 0 {
                        let counts = cursor.topics.entry(topic.clone()).or_default();
                        let others = counts.thinned + counts.set_aside + counts.sink_dropped;
                        counts.exported = totals.received.saturating_sub(others);
                    }
                }
            }
            Needs::EveryCut => {
                for (topic, more) in &passed.delivery.topics {
                    let counts = cursor.topics.entry(topic.clone()).or_default();
                    counts.exported += more.exported;
                    counts.thinned += more.thinned;
                    counts.set_aside += more.set_aside;
                }
            }
        }
        if !self.unsaved.iter().any(|name| name == passed.sink) {
            self.unsaved.push(passed.sink.to_owned());
        }
    }

    /// Stores the cursors that moved and deletes what all have passed.
    pub async fn save(&mut self, desk: &Desk) -> Result<(), Error> {
        while let Some(sink) = self.unsaved.last() {
            let Some(cursor) = self.cursors.get(sink) else { break };
            // Cursors of sinks that this plotter does not have count too: their own plotter may come back.
            let all = self.cursors.values().map(|cursor| cursor.cut).min().unwrap_or(0);
            // Entries go with the last cursor that passes them, in one step: before, they are counted as pending.
            let last = self.unsaved.len() == 1;
            let delete = if last { self.progress.passed(all) } else { Vec::new() };
            desk.store
                .advance(
                    &self.run,
                    self.partition,
                    desk.daemon,
                    self.token,
                    sink,
                    cursor,
                    &delete,
                )
                .await?;
            if last {
                self.progress.forget(all);
                self.stored_at = self.stored_at.split_off(&(all + 1));
            }
            self.unsaved.pop();
        }
        Ok(())
    }

    /// Gives the partition up.
    pub async fn let_go(self, desk: &Desk) -> Result<(), Error> {
        desk.store
            .let_go(&self.run, self.partition, desk.daemon, self.token)
            .await
    }
}

/// How long sinks get to finish when a partition or the plotter is let go.
pub const SINK_DEADLINE: Duration = Duration::from_secs(5);
