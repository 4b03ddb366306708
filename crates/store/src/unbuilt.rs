//! Scaffolding until both stores are built.
use crate::{
    Error,
    contract::*,
    redis::RedisStore,
    types::{
        Change, Claimed, Cursor, DeviceState, Entry, EntryId, FlushAnswer, Left, Member, NewCut, OpenRun,
        PartitionSnapshot, PlotterClaim, ReceiptFlush, Renewal, Role, RunRecord, RunState, SendFlush, TopicState,
    },
};
use async_trait::async_trait;
use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Token, Topic},
    time::Reference,
};
use std::time::Duration;
#[async_trait]
impl Registry for RedisStore {
    /// Joins the named run, or the open one, or opens one. Refuses by name what disagrees with the run's pins, and a
    /// run that no producer may join any more.
    async fn open_run(&self, _request: &OpenRun) -> Result<RunRecord, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// All runs known, newest first.
    async fn runs(&self) -> Result<Vec<RunRecord>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// One run.
    async fn run(&self, _run: &RunName) -> Result<Option<RunRecord>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Moves a run on, never back; true when it now stands at `to`. Open→Draining is refused while a member with role
    /// producer has neither ended nor vanished.
    async fn advance_run(&self, _run: &RunName, _to: RunState) -> Result<bool, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Marks a run as rolled back.
    async fn mark_restored(&self, _run: &RunName) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Deletes every key of a run.
    async fn purge(&self, _run: &RunName) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }

    /// Enters the daemon in the run's roster (again, after a rollback: with the ordinal it had if that is free).
    async fn enlist(&self, _run: &RunName, _daemon: DaemonId, _role: Role, _wish: Option<u32>) -> Result<u32, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// The daemon's last word in the run: frees its ordinal; its row stays, ended.
    async fn discharge(&self, _run: &RunName, _daemon: DaemonId) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// All members.
    async fn roster(&self, _run: &RunName) -> Result<Vec<Member>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Removes a member found dead if its counter still is `counter`: frees its ordinal; its row stays, vanished.
    async fn expel(&self, _run: &RunName, _daemon: DaemonId, _counter: u64) -> Result<bool, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }

    /// Registers devices of one partition; creates the daemon's lease row there. Announces free topics.
    async fn register(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _devices: &[DeviceState],
    ) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// All devices of a partition with their rows.
    async fn devices(&self, _run: &RunName, _partition: Partition) -> Result<Vec<DeviceState>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// All response topics of a partition.
    async fn topics(&self, _run: &RunName, _partition: Partition) -> Result<Vec<TopicState>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// How many topics are free, in each partition that has any.
    async fn free(&self, _run: &RunName) -> Result<Vec<(Partition, u64)>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Takes up to `room` free topics; creates the daemon's lease row there when anything was taken.
    async fn claim(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _room: usize,
    ) -> Result<Vec<Claimed>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Marks claims as subscribed; answers those that no longer hold.
    async fn ready(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _topics: &[(Topic, Token)],
    ) -> Result<Vec<Topic>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Gives claims up after their last flush; `closed` ones become Closed, the others Free. Settling a lost claim is no error.
    async fn give_back(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _topics: &[(Topic, Token, bool)],
        _left: Left,
    ) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }

    /// Renews the daemon's rows in the roster and in the partitions, in one pipeline. Never creates a row.
    /// The first answer is whether the roster row stood.
    async fn renew(
        &self,
        _run: &RunName,
        _daemon: DaemonId,
        _partitions: &[Partition],
    ) -> Result<(bool, Vec<Renewal>), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// All lease rows of these partitions, for an observer.
    async fn leases(
        &self,
        _run: &RunName,
        _partitions: &[Partition],
    ) -> Result<Vec<(Partition, DaemonId, u64)>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Takes over from a daemon seen dead: if its counter still is `counter`, deletes its row, frees its claims (left:
    /// died), marks its devices without a last word vanished, frees its plotter hold. False when the counter moved.
    async fn evict(
        &self,
        _run: &RunName,
        _partition: Partition,
        _dead: DaemonId,
        _counter: u64,
    ) -> Result<bool, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Releases the daemon's lease row in a partition where it holds nothing any more.
    async fn release(&self, _run: &RunName, _partition: Partition, _daemon: DaemonId) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }

    /// Waits for announcements at most `timeout`; empty on timeout, or when announcements cannot be had.
    async fn changes(&self, _timeout: Duration) -> Result<Vec<Change>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
}
#[async_trait]
impl Samples for RedisStore {
    async fn retain(&self, _run: &RunName, _partition: Partition, _bytes: u64) -> Result<(), Error> {
        Err(Error::Fenced)
    }
    /// A consumer's flush: token checks, entries, states, counters in one atomic step.
    async fn append(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _flush: &ReceiptFlush,
    ) -> Result<FlushAnswer, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// A producer's flush: entries and rows in one atomic step. Fails with [`Error::Fenced`] when its lease row is gone
    /// and the row it writes is not a last word.
    async fn append_sends(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _flush: &SendFlush,
    ) -> Result<FlushAnswer, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Entries after `after`, oldest first, at most `limit`.
    async fn entries(
        &self,
        _run: &RunName,
        _partition: Partition,
        _after: EntryId,
        _limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Takes a partition for aggregation if nobody holds it; creates the lease row. `sinks` get cursors where they have none.
    async fn hold(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _sinks: &[String],
    ) -> Result<Option<PlotterClaim>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Who aggregates each partition that is held.
    async fn holders(&self, _run: &RunName, _partitions: &[Partition]) -> Result<Vec<(Partition, DaemonId)>, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Appends a cut with the cumulative state that includes it. Repeating the newest cut is a success;
    /// [`Error::Fenced`] when the token does not hold.
    async fn cut(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _token: Token,
        _cut: &NewCut,
    ) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Moves a sink's cursor, deletes cuts and entries that every cursor has passed (`delete`: the plotter, which knows
    /// what each cut holds, names the entries). Fenced likewise.
    async fn advance(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _token: Token,
        _sink: &str,
        _cursor: &Cursor,
        _delete: &[EntryId],
    ) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Gives the partition up.
    async fn let_go(
        &self,
        _run: &RunName,
        _partition: Partition,
        _daemon: DaemonId,
        _token: Token,
    ) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
}
#[async_trait]
impl Ledgers for RedisStore {
    /// Everything of one partition that a report needs, read atomically.
    async fn snapshot(&self, _run: &RunName, _partition: Partition) -> Result<PartitionSnapshot, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Settles a topic nobody holds: stores its final state and closes it. False when it was taken meanwhile.
    async fn settle(
        &self,
        _run: &RunName,
        _partition: Partition,
        _topic: &Topic,
        _state: &[u8],
    ) -> Result<bool, Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
    /// Marks a device whose producer is gone without a last word; its row as rebuilt.
    async fn bury(
        &self,
        _run: &RunName,
        _partition: Partition,
        _epoch: Epoch,
        _row: &isochrone_model::row::SendRow,
    ) -> Result<(), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
}
#[async_trait]
impl ReferenceClock for RedisStore {
    /// One reading. The caller takes its own clock before and after. The text identifies the server's life (run id).
    async fn read(&self, _run: Option<&RunName>) -> Result<(Reference, String), Error> {
        Err(Error::Refused {
            address: String::new(),
            cause: "not built yet".into(),
        })
    }
}
impl Store for RedisStore {
    fn memory(&self) -> Duration {
        Duration::ZERO
    }
}
