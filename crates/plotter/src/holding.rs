//! One partition that this plotter holds: from stored entries to cuts, and (in `offering`) from cuts to sinks and cursors.
//!
//! The order is what makes a crash harmless: a cut is stored with the state that includes it before any sink sees it, a cursor
//! moves after its sink has it, entries go with the last cursor. Every step can be repeated.

mod account;
mod offering;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use isochrone_daemon::{clock::SystemClock, telemetry::TARGET};
use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Token},
    time::{Clock, Monotonic, Second},
    window::{CutEntry, Totals},
};
use isochrone_sink::Hold;
use isochrone_store::{
    Error, Store,
    types::{Entry, NewCut, PlotterClaim, TopicStatus},
};
use tracing::{Instrument, debug_span};

use self::account::Account;
use crate::{
    decode::{decode, epochs},
    progress::{Progress, Proposal},
    sinks::Sinks,
};

/// Entries read in one call: at 1,000 samples of 8 bytes each, 2 MiB at the most.
pub const PAGE: usize = 256;

/// What may wait for its second in memory; more is cut before its time, as a part of its own, which is never wrong.
const WAITING_BYTES: usize = 8 << 20;

/// Bytes of entries that are kept for sinks which have not had them, so that these are seldom read twice: some seconds at
/// their usual pace. A sink that is away gets the rest from the store, where ISOCHRONE_RETAIN bounds it.
const KEPT_BYTES: usize = 1 << 20;

/// Device lives asked for in vain that are remembered, so that foreign ones do not cause a look-up with every cut.
const STRANGERS: usize = 10_000;

/// What all partitions work with.
pub struct Desk {
    /// The store.
    pub store: Arc<dyn Store>,
    /// This plotter.
    pub daemon: DaemonId,
    /// Its clock, which knows how long the store has lived.
    pub clock: Arc<SystemClock>,
    /// Its sinks.
    pub sinks: Sinks,
    /// ISOCHRONE_RETAIN, of a run.
    pub retain: u64,
}

impl Desk {
    /// Whether the store has promised never to lose what it had at this time.
    pub fn keeps_what_it_had_at(&self, at: Monotonic) -> bool {
        self.clock.is_lasting(at, self.store.memory())
    }
}

/// A held partition.
pub struct Holding {
    run: RunName,
    partition: Partition,
    token: Token,
    hold: Hold,
    progress: Progress,
    totals: Arc<Totals>,
    /// The run is closed, and nothing was written that is not read.
    read_to_end: bool,
    /// By sink, those of other plotters included.
    accounts: BTreeMap<String, Account>,
    /// The newest cut when the store was last asked about sinks that are far behind.
    asked_at: u64,
    pending: Option<Pending>,
    strangers: HashSet<Epoch>,
    /// The newest cut that the store cannot lose any more, and when the later ones were stored.
    secure: u64,
    stored_at: VecDeque<(u64, Monotonic)>,
    /// What sinks have kept here, until they are told.
    kept: Vec<(String, Vec<u8>)>,
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
    /// `hold` says whether its lease is valid. Call [`Holding::begin`] before anything else.
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
        let cursors = claim.cursors.into_iter();
        let newest = claim.cuts.last().into_iter();
        Ok(Holding {
            run: run.clone(),
            partition,
            token: claim.token,
            hold,
            progress: Progress::resume(&claim.cuts, KEPT_BYTES),
            totals: Arc::new(totals),
            read_to_end: false,
            accounts: cursors.map(|(sink, cursor)| (sink, Account::new(cursor))).collect(),
            asked_at: 0,
            pending: None,
            strangers: HashSet::new(),
            secure: 0,
            stored_at: newest.map(|cut| (cut.number, desk.clock.monotonic())).collect(),
            kept: of_sinks,
        })
    }

    /// Tells the sinks what they have kept here, under whichever plotter.
    pub fn begin(&mut self, desk: &Desk) {
        let kept = std::mem::take(&mut self.kept);
        for sink in desk.sinks.each() {
            let prefix = field_prefix(sink.name());
            let own = kept
                .iter()
                .filter_map(|(field, bytes)| Some((field.strip_prefix(&prefix)?.to_owned(), bytes.clone())));
            sink.recall(&self.run, self.partition, &own.collect::<Vec<_>>());
        }
    }

    /// The newest cut that the store has promised never to lose.
    pub fn secure(&mut self, desk: &Desk) -> u64 {
        while let Some((number, _)) = self.stored_at.pop_front_if(|(_, at)| desk.keeps_what_it_had_at(*at)) {
            self.secure = number;
        }
        self.secure
    }

    /// The newest cut.
    pub fn newest(&self) -> u64 {
        self.progress.newest()
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
        self.offer(desk).await?;
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
        if !self.has_waiting() && !self.is_refused() {
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
        self.step(desk, page, second).await?;
        self.heed_refusals(desk).await
    }

    /// Whether a closed run's partition has been read to its end.
    pub fn is_read_to_end(&self) -> bool {
        self.read_to_end
    }

    /// Cuts everything that was ever written: the run is closed.
    pub async fn finish(&mut self, desk: &Desk) -> Result<(), Error> {
        self.read_to_end = false;
        loop {
            let page = self.read(desk).await?;
            let newest = page.iter().map(|entry| entry.entry.second).max();
            let last = page.len() < PAGE;
            if let Some(second) = self.progress.waiting_to().max(newest).or(self.progress.newest_second()) {
                self.step(desk, page, second).await?;
            }
            if last {
                self.read_to_end = true;
                return self.heed_refusals(desk).await;
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
            let stored_at = desk.clock.monotonic();
            self.stored_at.push_back((pending.proposal.cut.number, stored_at));
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
        // A producer registers again before it sends again, so what it writes is never of a stranger for long.
        let received = entries.iter().filter(|entry| matches!(entry, CutEntry::Receipt { .. }));
        self.strangers
            .extend(received.flat_map(epochs).filter(|epoch| !self.totals.knows(*epoch)));
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

    /// Gives the partition of a closed run up for good: it is done.
    pub async fn retire(&mut self, desk: &Desk) -> Result<(), Error> {
        self.save(desk).await?;
        desk.store
            .finish(&self.run, self.partition, desk.daemon, self.token)
            .await
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
