//! Samples, ledgers and the reference clock of the memory store.

use std::time::Duration;

use async_trait::async_trait;
use isochrone_model::{
    id::{DaemonId, Epoch, Partition, RunName, Token, Topic},
    row::SendRow,
    time::Reference,
};

use super::MemoryStore;
use crate::{
    Error, Ledgers, ReferenceClock, Samples, Store,
    types::{
        Advance, Cursor, Entry, EntryId, FlushAnswer, Holder, NewCut, PartitionSnapshot, PlotterClaim, ReceiptFlush,
        SendFlush,
    },
};

#[async_trait]
impl Samples for MemoryStore {
    async fn append(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        flush: &ReceiptFlush,
    ) -> Result<FlushAnswer, Error> {
        self.within(run, partition, |state, now| state.append(daemon, flush, now))
    }

    async fn append_sends(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        flush: &SendFlush,
    ) -> Result<FlushAnswer, Error> {
        self.within(run, partition, |state, now| state.append_sends(daemon, flush, now))?
    }

    async fn entries(
        &self,
        run: &RunName,
        partition: Partition,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.within(run, partition, |state, _| state.entries(after, limit))
    }

    async fn hold(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        sinks: &[String],
    ) -> Result<Option<PlotterClaim>, Error> {
        self.within(run, partition, |state, now| state.hold(daemon, sinks, now))
    }

    async fn holders(&self, run: &RunName, partitions: &[Partition]) -> Result<Vec<(Partition, Holder)>, Error> {
        let mut holders = Vec::new();
        for &partition in partitions {
            let holder = self.within(run, partition, |state, _| state.plotter())?;
            holders.extend(holder.map(|holder| (partition, holder)));
        }
        Ok(holders)
    }

    async fn cut(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        token: Token,
        cut: &NewCut,
    ) -> Result<(), Error> {
        self.within(run, partition, |state, _| state.cut(daemon, token, cut))?
    }

    async fn advance(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        token: Token,
        advance: Advance<'_>,
    ) -> Result<Option<Cursor>, Error> {
        self.within(run, partition, |state, _| state.advance(daemon, token, advance))?
    }

    async fn retain(&self, run: &RunName, partition: Partition, bytes: u64) -> Result<(), Error> {
        self.within(run, partition, |state, _| state.retain(bytes))
    }

    async fn let_go(&self, run: &RunName, partition: Partition, daemon: DaemonId, token: Token) -> Result<(), Error> {
        self.within(run, partition, |state, _| state.let_go(daemon, token))
    }

    async fn finish(&self, run: &RunName, partition: Partition, daemon: DaemonId, token: Token) -> Result<(), Error> {
        self.within(run, partition, |state, _| state.finish(daemon, token))?
    }
}

#[async_trait]
impl Ledgers for MemoryStore {
    async fn snapshot(&self, run: &RunName, partition: Partition) -> Result<PartitionSnapshot, Error> {
        self.within(run, partition, |state, _| state.snapshot())
    }

    async fn settle(&self, run: &RunName, partition: Partition, topic: &Topic, state: &[u8]) -> Result<bool, Error> {
        self.within(run, partition, |partition, now| partition.settle(topic, state, now))
    }

    async fn bury(&self, run: &RunName, partition: Partition, epoch: Epoch, row: &SendRow) -> Result<(), Error> {
        self.within(run, partition, |state, _| state.bury(epoch, row))
    }
}

#[async_trait]
impl ReferenceClock for MemoryStore {
    async fn read(&self, _run: Option<&RunName>) -> Result<(Reference, String), Error> {
        Ok((self.now(), "memory".to_owned()))
    }
}

impl Store for MemoryStore {
    fn memory(&self) -> Duration {
        // It is lost with its daemons or not at all.
        Duration::ZERO
    }
}
