//! What the store's traits take and give.

use std::time::Duration;

use bytes::Bytes;
use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Token, Topic},
    row::{Device, SendRow},
    time::{Reference, Second},
};
use serde::{Deserialize, Serialize};

/// Version of everything that is written to the store; daemons of different versions do not share a run.
pub const SCHEMA: u32 = 2;

/// Where a run stands. It only ever moves to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Producers may join.
    Open,
    /// Every producer has ended or vanished; what is under way still arrives.
    Draining,
    /// Nothing more will be written.
    Closed,
}

impl RunState {
    /// All of them, in their order.
    pub const ALL: [RunState; 3] = [RunState::Open, RunState::Draining, RunState::Closed];

    /// As the store and reports spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Open => "open",
            RunState::Draining => "draining",
            RunState::Closed => "closed",
        }
    }

    /// The other way round.
    pub fn named(name: &str) -> Option<RunState> {
        RunState::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// [`Pins::claim_unit`] of a run whose partitions are held as a whole.
pub const WHOLE_PARTITIONS: &str = "partition";

/// What every daemon of a run must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Version of everything written to the store.
    pub schema: u32,
    /// How many partitions the run has.
    pub partitions: u16,
    /// `topic`, or `partition` ([`WHOLE_PARTITIONS`]).
    pub claim_unit: String,
}

impl Pins {
    /// A partition's topics have one holder: who holds one of them is the only one who may claim the others.
    pub fn whole_partitions(&self) -> bool {
        self.claim_unit == WHOLE_PARTITIONS
    }
}

/// A run as the store knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name.
    pub run: RunName,
    /// What its daemons agree on.
    pub pins: Pins,
    /// Where it stands.
    pub state: RunState,
    /// When it was opened, by the store's clock.
    pub opened_at: Reference,
    /// When it was closed, by the store's clock.
    pub closed_at: Option<Reference>,
    /// Keys expire this long after the last write.
    pub keep: Duration,
    /// The store lost more than it promised (a rollback deeper than 2 s).
    pub restored: bool,
}

/// What a producer asks for when it joins.
#[derive(Clone, Debug)]
pub struct OpenRun {
    /// A name, or the open run, or a new one named by the store's UTC time (`2026-01-31T12-00-00Z`, with `-2`, `-3`… when taken).
    pub run: Option<RunName>,
    /// What this daemon will work with.
    pub pins: Pins,
    /// How long keys live after the last write.
    pub keep: Duration,
}

/// What a daemon does in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends.
    Producer,
    /// Receives.
    Consumer,
    /// Aggregates.
    Plotter,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Producer, Role::Consumer, Role::Plotter];

    /// As the store, programs and logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
            Role::Plotter => "plotter",
        }
    }

    /// The other way round.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// A daemon's row in the run's roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The daemon.
    pub daemon: DaemonId,
    /// What it does.
    pub role: Role,
    /// The lowest number free among the run's members of that role when it joined, from 0.
    pub ordinal: u32,
    /// Its lease counter.
    pub counter: u64,
    /// What its counter was when it joined: lower for who joined earlier.
    pub joined: u64,
    /// It said its last word in this run.
    pub ended: bool,
    /// It was found dead.
    pub vanished: bool,
}

/// Something a daemon saw happen, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Whom it is about.
    pub daemon: DaemonId,
    /// What happened.
    pub what: NoteKind,
    /// When it began.
    pub at: Reference,
    /// How long it lasted, in nanoseconds; zero for what is over at once.
    pub lasted_ns: u64,
}

/// What a [`Note`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// It was found dead by others.
    Dead,
    /// It was away from its work: stopped, or without a processor.
    Away,
    /// The store did not answer it.
    StoreAway,
    /// Another life of the store's server answers it.
    NewServer,
    /// The reference clock jumped, or another node tells it.
    NewEra,
}

impl Note {
    /// How many notes of a run are kept; the rest is counted.
    pub const MOST: usize = 1_000;

    /// The same for two accounts of the same thing.
    pub(crate) fn key(&self) -> String {
        match self.what {
            NoteKind::Dead => format!("{} dead", self.daemon),
            what => format!("{} {what:?} {}", self.daemon, self.at.0),
        }
    }
}

/// Where a response topic stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicStatus {
    /// Nobody holds it.
    Free,
    /// Held, not yet subscribed.
    Claimed,
    /// Held and subscribed.
    Ready,
    /// Drained and settled.
    Closed,
}

/// How a claim was left, told to the next holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Never held.
    Never,
    /// Given back by its holder, whose last flush came before.
    GivenBack {
        /// A broker session still queues for the successor.
        session: bool,
    },
    /// Its holder was found dead or fenced.
    Died,
}

/// A response topic in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// The response topic.
    pub topic: Topic,
    /// Where it stands.
    pub status: TopicStatus,
    /// Who holds it, under which token.
    pub holder: Option<(DaemonId, Token)>,
    /// How the last holder left.
    pub left: Left,
    /// When the claim became ready or was left, by the store's clock.
    pub since: Reference,
    /// Samples stored for it.
    pub stored: u64,
    /// Samples a consumer had to drop.
    pub dropped: u64,
}

/// A claim just taken.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The response topic.
    pub topic: Topic,
    /// Fences every write.
    pub token: Token,
    /// All devices that share the response topic.
    pub devices: Vec<DeviceState>,
    /// How the last holder left.
    pub left: Left,
    /// When it was left, by the store's clock.
    pub left_at: Reference,
    /// The last holder's saved state (a `model::tracker` book), if it saved one.
    pub state: Option<Bytes>,
    /// Samples stored so far, and samples dropped: the running total goes on from their sum.
    pub stored: u64,
    /// See `stored`.
    pub dropped: u64,
}

/// A claim on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// The response topic.
    pub topic: Topic,
    /// Must still hold.
    pub token: Token,
    /// What becomes of it.
    pub end: ClaimEnd,
}

/// What a claim is given back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimEnd {
    /// For the next holder.
    Free,
    /// Settled, with so many devices: when more have registered meanwhile, it is for the next holder after all.
    Settled(usize),
}

/// A device and what its producer last said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceState {
    /// The registration.
    pub device: Device,
    /// The newest row; `ended` or `vanished` in it is the last word.
    pub row: SendRow,
}

/// What a renewal found in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Where.
    pub partition: Partition,
    /// The daemon's row stood and was renewed. `false`: everything held there is gone.
    pub alive: bool,
    /// Claims still held there.
    pub claims: Vec<(Topic, Token)>,
}

/// Parts that a daemon puts into one flush: bounds one script's time in Redis after an outage.
pub const MOST_PARTS_OF_A_FLUSH: usize = 4_096;

/// One stream entry: one second, one flush, of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Who measured: second of receipt for [`EntryKind::Receipt`], of due for [`EntryKind::Send`].
    pub kind: EntryKind,
    /// The second all parts belong to.
    pub second: Second,
    /// An encoded `ReceiptHead` or `SendHead`.
    pub head: Bytes,
    /// By topic (response topic for receipts, device's topic's epoch in hex for sends).
    pub parts: Vec<NewPart>,
}

impl NewEntry {
    /// Parts of one stream entry: a store writes more as several, each with the same head.
    pub const MOST_PARTS: usize = 1_500;
}

/// One topic's part of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPart {
    /// Response topic, or the epoch in hex for sends.
    pub key: String,
    /// The claim's token; zero for sends.
    pub token: Token,
    /// How many samples `body` holds; for sends, how many messages it counts as sent.
    pub samples: u64,
    /// An encoded `ReceiptPart` or `SendPart`.
    pub body: Bytes,
}

/// Which side wrote an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A consumer.
    Receipt,
    /// A producer.
    Send,
}

/// One atomic write of a consumer to one partition: entries of all its open seconds, and the state as of their end.
#[derive(Clone, Debug)]
pub struct ReceiptFlush {
    /// Counts flushes of (daemon life, partition) from 1; a repeat gets the same answer and stores nothing.
    pub batch: u64,
    /// One entry a second.
    pub entries: Vec<NewEntry>,
    /// By topic, for each topic that has a part: state after this flush.
    pub states: Vec<TopicSave>,
}

/// A consumer's state of one topic, saved with a flush.
#[derive(Clone, Debug)]
pub struct TopicSave {
    /// The response topic.
    pub topic: Topic,
    /// Must still hold, or all of this topic's parts are left out and it is named in the answer.
    pub token: Token,
    /// Unique samples counted before this flush's; what it is ahead of stored + dropped was dropped.
    pub total_before: u64,
    /// An encoded `ReceiptRow` with its trackers (a `model::tracker` book).
    pub state: Bytes,
}

/// The answer to a flush.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushAnswer {
    /// Topics whose token no longer holds; nothing of them was stored.
    pub fenced: Vec<Topic>,
    /// ISOCHRONE_RETAIN was exceeded: entries left out (their samples are counted as `dropped` of their topics).
    pub shed: u64,
}

/// One atomic write of a producer to one partition.
#[derive(Clone, Debug)]
pub struct SendFlush {
    /// As in [`ReceiptFlush`].
    pub batch: u64,
    /// One entry a due-second.
    pub entries: Vec<NewEntry>,
    /// The new whole row of each device that changed.
    pub rows: Vec<(Epoch, SendRow)>,
}

/// Position of an entry in a partition's stream: Redis's `ms-seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId(pub u64, pub u64);

impl EntryId {
    /// The position just before; the first has none and is its own.
    pub fn before(self) -> EntryId {
        match self {
            EntryId(0, 0) => self,
            EntryId(ms, 0) => EntryId(ms - 1, u64::MAX),
            EntryId(ms, seq) => EntryId(ms, seq - 1),
        }
    }
}

/// A stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub id: EntryId,
    /// Who wrote it.
    pub daemon: DaemonId,
    /// Which flush of that daemon.
    pub batch: u64,
    /// As written, without the parts that were fenced.
    pub entry: NewEntry,
}

/// What the plotter decided to export together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// 1, 2, 3… within the partition.
    pub number: u64,
    /// Entries up to this position…
    pub last: EntryId,
    /// …and up to this second, that no earlier cut holds.
    pub second: Second,
}

/// One atomic step of a plotter: the cut and the cumulative state that includes it.
#[derive(Clone, Debug)]
pub struct NewCut {
    /// Its number is the stored one plus one, or nothing happens.
    pub cut: Cut,
    /// Fields of the cumulative hash that changed.
    pub changed: Vec<(String, Bytes)>,
}

/// Who aggregates a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A plotter, while its lease holds.
    Plotter(DaemonId),
    /// Nobody and never again: see [`finish`](crate::Samples::finish).
    Finished,
}

/// What a plotter finds when it takes a partition.
#[derive(Clone, Debug)]
pub struct PlotterClaim {
    /// Fences its writes.
    pub token: Token,
    /// The last cut that all cursors have passed, where there is one, and those after it, oldest first; the last one is the
    /// newest of all.
    pub cuts: Vec<Cut>,
    /// The cumulative hash as of the newest cut.
    pub cumulative: Vec<(String, Bytes)>,
    /// By sink: its cursor.
    pub cursors: Vec<(String, Cursor)>,
}

/// What [`advance`](crate::Samples::advance) moves.
#[derive(Clone, Copy, Debug)]
pub struct Advance<'a> {
    /// Whose cursor.
    pub sink: &'a str,
    /// Where to.
    pub cursor: &'a Cursor,
    /// The cut it stood at when the plotter last heard of it.
    pub known: u64,
    /// Entries to delete.
    pub delete: &'a [EntryId],
}

/// How far one sink has come in one partition, and what became of the samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything up to this cut is done with.
    pub cut: u64,
    /// By response topic.
    pub topics: std::collections::BTreeMap<Topic, SinkCounts>,
}

/// One sink's account of one topic, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkCounts {
    /// Delivered.
    pub exported: u64,
    /// Left out by thinning.
    pub thinned: u64,
    /// Refused by the back end for good.
    pub set_aside: u64,
    /// Dropped because the sink was too slow.
    pub sink_dropped: u64,
}

impl SinkCounts {
    /// All of them: the samples up to the cursor.
    pub fn sum(&self) -> u64 {
        self.exported + self.thinned + self.set_aside + self.sink_dropped
    }
}

/// Everything a report needs of one partition, read in one go.
#[derive(Clone, Debug, Default)]
pub struct PartitionSnapshot {
    /// Devices and their rows.
    pub devices: Vec<DeviceState>,
    /// Response topics.
    pub topics: Vec<TopicState>,
    /// By response topic: the consumer's saved state.
    pub states: Vec<(Topic, Bytes)>,
    /// The cumulative hash.
    pub cumulative: Vec<(String, Bytes)>,
    /// The newest cut.
    pub cut: Option<Cut>,
    /// By sink.
    pub cursors: Vec<(String, Cursor)>,
    /// Samples in entries that no cut holds yet, counted entry by entry, by response topic.
    pub pending: Vec<(Topic, u64)>,
    /// By sink: samples in entries of cuts that its cursor has not passed, counted likewise.
    pub behind: Vec<(String, Vec<(Topic, u64)>)>,
    /// Messages sent in producers' entries that no cut holds yet, counted likewise, by epoch.
    pub unplotted: Vec<(Epoch, u64)>,
    /// Messages sent in producers' entries that the partition had no room for, by epoch.
    pub shed: Vec<(Epoch, u64)>,
}

/// Something changed that a waiting daemon wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A run was opened, or moved on.
    Run(RunName),
    /// Topics were registered or freed there.
    Free(RunName, Partition),
    /// Claims became ready there.
    Ready(RunName, Partition),
}
