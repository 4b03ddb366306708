//! What every store promises. The contract suite in `tests/` holds both implementations to it.

use std::time::Duration;

use async_trait::async_trait;
use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Token, Topic},
    time::Reference,
};

use crate::{
    Error,
    types::{
        Advance, Change, Claimed, Cursor, DeviceState, Entry, EntryId, FlushAnswer, GivenBack, Holder, Left, Member,
        NewCut, Note, OpenRun, PartitionSnapshot, PlotterClaim, ReceiptFlush, Renewal, Role, RunRecord, RunState,
        SendFlush, TopicState,
    },
};

/// Runs, members, devices, response topics, claims and leases.
///
/// Every call is idempotent or safe to repeat after a lost answer, and answers or fails within 500 ms of the last byte
/// (longer for large replies). Errors of kind [`Error::Away`] mean that the call may or may not have happened.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Joins the named run, or the open one, or opens one. Refuses by name what disagrees with the run's pins, and a
    /// run that no producer may join any more.
    async fn open_run(&self, request: &OpenRun) -> Result<RunRecord, Error>;
    /// All runs known, newest first.
    async fn runs(&self) -> Result<Vec<RunRecord>, Error>;
    /// One run.
    async fn run(&self, run: &RunName) -> Result<Option<RunRecord>, Error>;
    /// Moves a run on, never back; true when it now stands at `to` or past it. Leaving Open is refused (false) while a
    /// member with role producer has neither ended nor vanished, and, before any producer has enlisted, while any member
    /// stands: it waits for one.
    async fn advance_run(&self, run: &RunName, to: RunState) -> Result<bool, Error>;
    /// Marks a run as rolled back.
    async fn mark_restored(&self, run: &RunName) -> Result<(), Error>;
    /// Keeps what a daemon saw; a repeat changes nothing. Beyond [`Note::MOST`] notes are only counted.
    async fn note(&self, run: &RunName, note: &Note) -> Result<(), Error>;
    /// Counts what a daemon saw and could not keep until the store had it: `total` in all of its life; a repeat, or less,
    /// changes nothing.
    async fn omit(&self, run: &RunName, daemon: DaemonId, total: u64) -> Result<(), Error>;
    /// All notes of a run, and how many more were only counted, here or by the daemons.
    async fn notes(&self, run: &RunName) -> Result<(Vec<Note>, u64), Error>;
    /// Deletes every key of a run.
    async fn purge(&self, run: &RunName) -> Result<(), Error>;

    /// Enters the daemon in the run's roster (again, after a rollback: with the ordinal it had if that is free).
    /// A member that stands keeps its ordinal. Producers are refused unless the run is open.
    async fn enlist(&self, run: &RunName, daemon: DaemonId, role: Role, wish: Option<u32>) -> Result<u32, Error>;
    /// The daemon's last word in the run: frees its ordinal; its row stays, ended.
    async fn discharge(&self, run: &RunName, daemon: DaemonId) -> Result<(), Error>;
    /// All members.
    async fn roster(&self, run: &RunName) -> Result<Vec<Member>, Error>;
    /// Removes a member found dead if its counter still is `counter`: frees its ordinal; its row stays, vanished.
    async fn expel(&self, run: &RunName, daemon: DaemonId, counter: u64) -> Result<bool, Error>;

    /// Registers devices of one partition; creates the daemon's lease row there. Announces free topics. A new epoch
    /// reopens a closed topic; an epoch that is known already changes nothing.
    async fn register(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        devices: &[DeviceState],
    ) -> Result<(), Error>;
    /// All devices of a partition with their rows.
    async fn devices(&self, run: &RunName, partition: Partition) -> Result<Vec<DeviceState>, Error>;
    /// All response topics of a partition.
    async fn topics(&self, run: &RunName, partition: Partition) -> Result<Vec<TopicState>, Error>;
    /// How many topics are free, in each partition that has any.
    async fn free(&self, run: &RunName) -> Result<Vec<(Partition, u64)>, Error>;
    /// Takes up to `room` free topics; creates the daemon's lease row there when anything was taken.
    ///
    /// In a run of whole partitions ([`Pins::whole_partitions`](crate::types::Pins::whole_partitions)) nothing is taken
    /// while another daemon holds a topic there: a partition has one holder, until it gives the last of them back or is
    /// evicted.
    ///
    /// After a lost answer it is called again with no `room`: then nothing is taken, and the answer is all of the daemon's
    /// claims there that are not ready yet, those of earlier answers among them. A daemon that finds in a renewal a claim
    /// it does not know calls it so too, or gives the claim back.
    async fn claim(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        room: usize,
    ) -> Result<Vec<Claimed>, Error>;
    /// Marks claims as subscribed; answers those that no longer hold.
    async fn ready(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        topics: &[(Topic, Token)],
    ) -> Result<Vec<Topic>, Error>;
    /// Gives claims up after their last flush. Settled ones become Closed, unless a device has registered that their
    /// holder did not know of; the others become Free. Settling a lost claim is no error. A claim that was neither ready
    /// nor flushed to stays as its last holder left it, whatever `left` says.
    async fn give_back(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        topics: &[GivenBack],
        left: Left,
    ) -> Result<(), Error>;

    /// Renews the daemon's rows in the roster and in the partitions, in one pipeline. Never creates a row.
    /// The first answer is whether the roster row stood.
    async fn renew(
        &self,
        run: &RunName,
        daemon: DaemonId,
        partitions: &[Partition],
    ) -> Result<(bool, Vec<Renewal>), Error>;
    /// All lease rows of these partitions, for an observer.
    async fn leases(&self, run: &RunName, partitions: &[Partition]) -> Result<Vec<(Partition, DaemonId, u64)>, Error>;
    /// Takes over from a daemon seen dead: if its counter still is `counter`, deletes its row, frees its claims (left:
    /// died), marks its devices without a last word vanished, frees its plotter hold. False when the counter moved.
    async fn evict(&self, run: &RunName, partition: Partition, dead: DaemonId, counter: u64) -> Result<bool, Error>;
    /// Releases the daemon's lease row in a partition where it holds nothing any more.
    async fn release(&self, run: &RunName, partition: Partition, daemon: DaemonId) -> Result<(), Error>;

    /// Waits for announcements at most `timeout`; empty on timeout, or when announcements cannot be had.
    async fn changes(&self, timeout: Duration) -> Result<Vec<Change>, Error>;
}

/// The stream of samples and the plotter's work on it.
#[async_trait]
pub trait Samples: Send + Sync {
    /// A consumer's flush: token checks, entries, states, counters in one atomic step.
    async fn append(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        flush: &ReceiptFlush,
    ) -> Result<FlushAnswer, Error>;
    /// A producer's flush: entries and rows in one atomic step. Fails with [`Error::Fenced`] when its lease row is gone
    /// and the row it writes is not a last word.
    async fn append_sends(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        flush: &SendFlush,
    ) -> Result<FlushAnswer, Error>;
    /// Entries after `after`, oldest first, at most `limit`.
    async fn entries(
        &self,
        run: &RunName,
        partition: Partition,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<Entry>, Error>;
    /// Takes a partition for aggregation if nobody holds it and it is not finished; creates the lease row. `sinks` get cursors
    /// where they have none.
    async fn hold(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        sinks: &[String],
    ) -> Result<Option<PlotterClaim>, Error>;
    /// Who aggregates each partition that is not free.
    async fn holders(&self, run: &RunName, partitions: &[Partition]) -> Result<Vec<(Partition, Holder)>, Error>;
    /// Appends a cut with the cumulative state that includes it. Repeating the newest cut is a success;
    /// [`Error::Fenced`] when the token does not hold.
    async fn cut(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        token: Token,
        cut: &NewCut,
    ) -> Result<(), Error>;
    /// Moves a sink's cursor, deletes entries that every cursor has passed, and cuts before the last of those (`delete`: the
    /// plotter, which knows what each cut holds, names the entries). Fenced likewise. When the stored cursor is beyond where
    /// the plotter knew it, nothing is done and it is the answer: what this sink held back was dropped (see
    /// [`Samples::retain`]), which the plotter must take into its own.
    async fn advance(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        token: Token,
        advance: Advance<'_>,
    ) -> Result<Option<Cursor>, Error>;
    /// How many bytes of entries the partition may hold (ISOCHRONE_RETAIN divided by the partitions; 512 MiB until a
    /// plotter says otherwise). Beyond it a flush makes room: the oldest cut goes that the slowest sinks have not passed,
    /// for them alone, and its samples count as [`sink_dropped`](crate::types::SinkCounts::sink_dropped) of theirs. Where
    /// no sink holds anything back the flush leaves its own entries out, and their samples count as dropped.
    async fn retain(&self, run: &RunName, partition: Partition, bytes: u64) -> Result<(), Error>;
    /// Gives the partition up.
    async fn let_go(&self, run: &RunName, partition: Partition, daemon: DaemonId, token: Token) -> Result<(), Error>;
    /// Gives the partition up for good: its run is closed and every sink has had all of it. Nobody can hold it any more, so
    /// that what its last holder shows of it is not shown twice. Repeating it is a success; [`Error::Fenced`] when the token
    /// does not hold.
    async fn finish(&self, run: &RunName, partition: Partition, daemon: DaemonId, token: Token) -> Result<(), Error>;
}

/// Reading what was counted.
#[async_trait]
pub trait Ledgers: Send + Sync {
    /// Everything of one partition that a report needs, read atomically.
    async fn snapshot(&self, run: &RunName, partition: Partition) -> Result<PartitionSnapshot, Error>;
    /// Settles a topic nobody holds: stores its final state and closes it. False when it was taken meanwhile.
    async fn settle(&self, run: &RunName, partition: Partition, topic: &Topic, state: &[u8]) -> Result<bool, Error>;
    /// Marks a device whose producer is gone without a last word; its row as rebuilt.
    async fn bury(
        &self,
        run: &RunName,
        partition: Partition,
        epoch: Epoch,
        row: &isochrone_model::row::SendRow,
    ) -> Result<(), Error>;
}

/// The reference clock: TIME of one node, read over a connection of its own.
#[async_trait]
pub trait ReferenceClock: Send + Sync {
    /// One reading. The caller takes its own clock before and after. The text identifies the server's life (run id).
    async fn read(&self, run: Option<&RunName>) -> Result<(Reference, String), Error>;
}

/// All of it.
pub trait Store: Registry + Samples + Ledgers + ReferenceClock {
    /// How long sent data must be remembered under one server life before it is safe: 2 s for Redis, 0 in memory.
    fn memory(&self) -> Duration;
}
