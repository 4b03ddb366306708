//! Moves a run on: open → draining when every producer has ended or vanished (one that idles has ended), → closed when
//! every topic is closed and nothing waits for a plotter that lives. Settles on the way what nobody claims.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Topic},
    time::{Clock, Monotonic, Reference},
    tracker::Book,
};
use isochrone_store::{
    Error, Fate,
    lease::ANSWER_WITHIN,
    types::{
        DeviceState, Entry, EntryId, Member, PartitionSnapshot, Role, RunRecord, RunState, TopicState, TopicStatus,
    },
};
use tokio::{sync::watch, time::Instant};

use super::{LONG_ANSWER, answer, leads, watcher::poll_every};
use crate::Context;

/// How long a run that is otherwise at rest waits for a sink that does not move: a restart of its back end fits in. A partition
/// that cannot be read gets as long.
pub const SINK_PATIENCE: Duration = Duration::from_secs(60);

/// How soon the leader sees that a run may move on.
const LEAD_EVERY: Duration = Duration::from_millis(250);
/// A pass over a large run may take long: it then rests this many times as long.
const REST: u32 = 5;
/// Entries read at once when looking for what no cut holds.
const PAGE: usize = 256;

pub struct Closer {
    context: Arc<Context>,
    run: RunName,
    partitions: Vec<Partition>,
    /// The roster as the watcher last read it.
    seen: watch::Receiver<Option<Vec<Member>>>,
    /// Partitions with nothing left to do. Final: a draining run gets no new topics.
    done: BTreeSet<Partition>,
    /// Partitions whose topics are all closed and whose rows are all final.
    settled: BTreeSet<Partition>,
    /// Free topics: since when they are (as the store says), and since when this warden has seen them so.
    free: HashMap<Topic, (Reference, Monotonic)>,
    /// Where sinks stand that are behind, and since when this warden has seen them stand there.
    behind: HashMap<Partition, (Vec<(String, u64)>, Monotonic)>,
    /// Partitions that cannot be read, and since when this warden has found them so.
    unreadable: HashMap<Partition, Monotonic>,
    /// Since when this warden has seen nobody in a run that no producer has joined.
    deserted: Option<Monotonic>,
    complained: bool,
}

/// Where the closer stands after a pass.
enum Pass {
    /// The run is closed or gone.
    Over,
    /// Someone else moves the run on.
    Follows,
    /// This one does.
    Leads,
}

impl Closer {
    pub fn new(context: Arc<Context>, record: &RunRecord, seen: watch::Receiver<Option<Vec<Member>>>) -> Closer {
        Closer {
            context,
            run: record.run.clone(),
            partitions: (0..record.pins.partitions).map(Partition).collect(),
            seen,
            done: BTreeSet::new(),
            settled: BTreeSet::new(),
            free: HashMap::new(),
            behind: HashMap::new(),
            unreadable: HashMap::new(),
            deserted: None,
            complained: false,
        }
    }

    /// Returns when the run is closed or gone.
    pub async fn run(&mut self) {
        loop {
            let begun = Instant::now();
            let pause = match self.pass().await {
                Ok(Pass::Over) => return,
                Ok(Pass::Leads) => LEAD_EVERY.max(begun.elapsed() * REST),
                Ok(Pass::Follows) => poll_every(self.context.common.lease),
                Err(error) => {
                    self.complain(&error);
                    poll_every(self.context.common.lease)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn pass(&mut self) -> Result<Pass, Error> {
        let store = self.context.store.clone();
        let Some(record) = answer(ANSWER_WITHIN, store.run(&self.run)).await? else {
            return Ok(Pass::Over);
        };
        if record.state == RunState::Closed {
            return Ok(Pass::Over);
        }
        let follows = |roster: &[Member]| !leads(self.context.daemon, roster);
        if self.seen.borrow().as_deref().is_some_and(follows) {
            return Ok(Pass::Follows);
        }
        // The last of them has the run drain itself; of one that died the watcher hears. Until then a large roster is read once.
        let sending = |roster: &[Member]| {
            roster
                .iter()
                .any(|member| member.role == Role::Producer && member.stands())
        };
        if record.state == RunState::Open && self.seen.borrow().as_deref().is_some_and(sending) {
            return Ok(Pass::Leads);
        }
        let roster = answer(ANSWER_WITHIN, store.roster(&self.run)).await?;
        if follows(&roster) {
            return Ok(Pass::Follows);
        }
        if record.state == RunState::Open {
            let over = producers_are_done(&roster) || self.is_deserted(&roster);
            if !over || !answer(ANSWER_WITHIN, store.advance_run(&self.run, RunState::Draining)).await? {
                return Ok(Pass::Leads);
            }
            tracing::info!(run = %self.run, "no producer is left; the run drains");
        }
        if self.drained(&roster).await? && answer(ANSWER_WITHIN, store.advance_run(&self.run, RunState::Closed)).await?
        {
            tracing::info!(run = %self.run, "everything has come to rest; the run is closed");
            return Ok(Pass::Over);
        }
        self.complained = false;
        Ok(Pass::Leads)
    }

    /// Whether the run was opened and left before a producer joined: nobody has stood in it for a drain and a lease, on this
    /// warden's own clock. Only a warden outside the roster can see that: that of `report --wait`.
    fn is_deserted(&mut self, roster: &[Member]) -> bool {
        if roster
            .iter()
            .any(|member| member.role == Role::Producer || member.stands())
        {
            self.deserted = None;
            return false;
        }
        let now = self.context.clock.monotonic();
        let since = *self.deserted.get_or_insert(now);
        now.since_ns(since) >= self.patience_ns()
    }

    /// How long what nobody holds must have been so before it is settled: a drain and a lease.
    fn patience_ns(&self) -> i64 {
        (self.context.common.drain + self.context.common.lease).as_nanos() as i64
    }

    /// One look at every partition that is not done. One that cannot be read holds up no other.
    async fn drained(&mut self, roster: &[Member]) -> Result<bool, Error> {
        let plotter_lives = roster
            .iter()
            .any(|member| member.role == Role::Plotter && member.stands());
        let mut all = true;
        for partition in self.partitions.clone() {
            if self.done.contains(&partition) {
                continue;
            }
            match self.rests(partition, roster, plotter_lives).await {
                Ok(rests) => {
                    self.unreadable.remove(&partition);
                    all &= rests;
                }
                Err(error) => match error.fate() {
                    Fate::Reject => all &= self.may_go_without(partition, &error),
                    Fate::Retry(_) | Fate::LetGo => return Err(error),
                },
            }
        }
        Ok(all)
    }

    /// Settles what is to be settled in a partition; true when nothing is left to do there.
    async fn rests(&mut self, partition: Partition, roster: &[Member], plotter_lives: bool) -> Result<bool, Error> {
        if !self.settled.contains(&partition) && !self.settle(partition, roster).await? {
            return Ok(false);
        }
        self.settled.insert(partition);
        if plotter_lives && self.is_pending(partition).await? {
            return Ok(false);
        }
        // Without a plotter it is not done for good: one may come, and finds it so.
        if plotter_lives {
            self.done.insert(partition);
        }
        Ok(true)
    }

    /// Whether the run need not wait any more for a partition that cannot be read: it has been so for [`SINK_PATIENCE`]. Said
    /// once.
    fn may_go_without(&mut self, partition: Partition, error: &Error) -> bool {
        let now = self.context.clock.monotonic();
        let since = *self.unreadable.entry(partition).or_insert_with(|| {
            let patience = SINK_PATIENCE.as_secs();
            tracing::error!(run = %self.run, %partition, "failed to {error}; in {patience} s the run goes on without it");
            now
        });
        now.since_ns(since) >= SINK_PATIENCE.as_nanos() as i64
    }

    /// Settles what nobody claims; true when all topics of the partition are closed and its rows final.
    async fn settle(&mut self, partition: Partition, roster: &[Member]) -> Result<bool, Error> {
        let store = self.context.store.clone();
        let topics = answer(LONG_ANSWER, store.topics(&self.run, partition)).await?;
        let unclaimed = self.unclaimed(&topics);
        let open = topics.iter().any(|topic| topic.status != TopicStatus::Closed);
        if open && unclaimed.is_empty() {
            return Ok(false);
        }
        if topics.is_empty() {
            return Ok(true);
        }
        let snapshot = answer(LONG_ANSWER, store.snapshot(&self.run, partition)).await?;
        let leases = answer(ANSWER_WITHIN, store.leases(&self.run, &[partition])).await?;
        let living: BTreeSet<DaemonId> = roster
            .iter()
            .filter(|member| member.stands())
            .map(|member| member.daemon)
            .chain(leases.iter().map(|lease| lease.1))
            .collect();
        let now = self.context.clock.reference();
        let mut rest = false;
        for topic in &snapshot.topics {
            let devices = devices_of(&snapshot, &topic.topic, &living);
            if topic.status == TopicStatus::Closed {
                self.bury(partition, &devices, &book_of(&snapshot, &topic.topic)?)
                    .await?;
            } else if unclaimed.contains(&topic.topic)
                && devices.iter().all(|device| device.row.ended || device.row.vanished)
            {
                rest |= !self
                    .settle_topic(partition, &topic.topic, &devices, &snapshot, now)
                    .await?;
            } else {
                rest = true;
            }
        }
        Ok(!rest)
    }

    /// Topics that have been free for a drain and a lease, on this warden's own clock.
    fn unclaimed(&mut self, topics: &[TopicState]) -> BTreeSet<Topic> {
        let now = self.context.clock.monotonic();
        let patience = self.patience_ns();
        let mut unclaimed = BTreeSet::new();
        for topic in topics {
            if topic.status != TopicStatus::Free {
                self.free.remove(&topic.topic);
                continue;
            }
            let seen = self.free.entry(topic.topic.clone()).or_insert((topic.since, now));
            if seen.0 != topic.since {
                *seen = (topic.since, now);
            }
            if now.since_ns(seen.1) >= patience {
                unclaimed.insert(topic.topic.clone());
            }
        }
        unclaimed
    }

    /// What was in flight becomes unheard; false when somebody took the topic meanwhile.
    async fn settle_topic(
        &mut self,
        partition: Partition,
        topic: &Topic,
        devices: &[DeviceState],
        snapshot: &PartitionSnapshot,
        now: Reference,
    ) -> Result<bool, Error> {
        let mut book = book_of(snapshot, topic)?;
        let finals = self.bury(partition, devices, &book).await?;
        for device in devices {
            let epoch = device.device.epoch;
            book.last_word(epoch, finals.get(&epoch).unwrap_or(&device.row), now);
        }
        let unheard = book.settle_unclaimed(now);
        let settled = answer(
            ANSWER_WITHIN,
            self.context.store.settle(&self.run, partition, topic, &book.save()),
        )
        .await?;
        if settled {
            self.free.remove(topic);
            let messages: u64 = unheard.iter().map(|missing| missing.range.count()).sum();
            tracing::warn!(run = %self.run, %topic, messages, "a response topic was claimed by nobody and is settled; what was in flight is unheard");
        }
        Ok(settled)
    }

    /// Makes the rows of vanished devices final, and returns those that it changed.
    async fn bury(
        &self,
        partition: Partition,
        devices: &[DeviceState],
        book: &Book,
    ) -> Result<BTreeMap<Epoch, isochrone_model::row::SendRow>, Error> {
        let receipt = book.row();
        let mut finals = BTreeMap::new();
        for DeviceState { device, row } in devices.iter().filter(|state| state.row.vanished && !state.row.ended) {
            let next = receipt.epochs.get(&device.epoch).map_or(0, |epoch| epoch.next);
            let rebuilt = row.rebuilt(next, device.qos);
            answer(
                ANSWER_WITHIN,
                self.context.store.bury(&self.run, partition, device.epoch, &rebuilt),
            )
            .await?;
            finals.insert(device.epoch, rebuilt);
        }
        Ok(finals)
    }

    /// Whether a plotter has work left in this partition.
    async fn is_pending(&mut self, partition: Partition) -> Result<bool, Error> {
        let store = self.context.store.clone();
        let snapshot = answer(LONG_ANSWER, store.snapshot(&self.run, partition)).await?;
        let newest = snapshot.cut.unwrap_or_default();
        let behind = snapshot.cursors.iter().filter(|(_, cursor)| cursor.cut < newest.number);
        let behind = behind.map(|(sink, cursor)| (sink.clone(), cursor.cut)).collect();
        if self.may_catch_up(partition, behind) || snapshot.pending.iter().any(|(_, samples)| *samples > 0) {
            return Ok(true);
        }
        // `pending` counts samples; the producers' entries must be cut as well.
        let mut after = EntryId::default();
        loop {
            let page: Vec<Entry> = answer(LONG_ANSWER, store.entries(&self.run, partition, after, PAGE)).await?;
            if page
                .iter()
                .any(|entry| entry.id > newest.last || entry.entry.second > newest.second)
            {
                return Ok(true);
            }
            match page.last() {
                Some(entry) if page.len() == PAGE => after = entry.id,
                _ => return Ok(false),
            }
        }
    }

    /// Whether sinks that are behind get more time: as long as they move, and [`SINK_PATIENCE`] after that. One that stays away
    /// does not keep a run from closing; what it never had stays `pending` in the ledger.
    fn may_catch_up(&mut self, partition: Partition, behind: Vec<(String, u64)>) -> bool {
        if behind.is_empty() {
            self.behind.remove(&partition);
            return false;
        }
        let now = self.context.clock.monotonic();
        let seen = self.behind.entry(partition).or_insert_with(|| (behind.clone(), now));
        if seen.0 != behind {
            *seen = (behind, now);
        }
        now.since_ns(seen.1) < SINK_PATIENCE.as_nanos() as i64
    }

    /// Once for each time that things go wrong.
    fn complain(&mut self, error: &Error) {
        if !self.complained {
            self.complained = true;
            tracing::warn!(run = %self.run, %error, "failed to see whether the run may move on; trying again");
        }
    }
}

/// There was a producer, and none is left.
fn producers_are_done(roster: &[Member]) -> bool {
    let mut producers = roster.iter().filter(|member| member.role == Role::Producer).peekable();
    producers.peek().is_some() && producers.all(|member| !member.stands())
}

/// Devices that share a response topic. One without a last word whose producer is gone has vanished.
fn devices_of(snapshot: &PartitionSnapshot, topic: &Topic, living: &BTreeSet<DaemonId>) -> Vec<DeviceState> {
    let mut devices: Vec<DeviceState> = snapshot
        .devices
        .iter()
        .filter(|state| state.device.response_topic == *topic)
        .cloned()
        .collect();
    for state in &mut devices {
        state.row.vanished |= !state.row.ended && !living.contains(&state.device.producer);
    }
    devices
}

/// What the last holder saved, or nothing.
fn book_of(snapshot: &PartitionSnapshot, topic: &Topic) -> Result<Book, Error> {
    match snapshot.states.iter().find(|(saved, _)| saved == topic) {
        None => Ok(Book::new()),
        Some((_, bytes)) => Book::load(bytes).map_err(|error| Error::Corrupt {
            key: format!("state of {topic}"),
            cause: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
