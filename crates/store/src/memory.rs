//! A store in this process: the state machines of [`crate::partition`] and [`crate::run`] behind mutexes.

mod samples;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use isochrone_model::{
    id::{DaemonId, Partition as PartitionId, RunName, Token, Topic},
    time::{Clock, Reference},
};

use crate::{
    Error, Registry,
    announce::Announcements,
    partition::Partition,
    run::{Run, name_at},
    types::{
        Change, Claimed, DeviceState, GivenBack, Left, Member, Note, OpenRun, Renewal, Role, RunRecord, RunState,
        TopicState,
    },
};

/// Keeps everything in this process; what it promises is [`crate::contract`], its clock is the reference clock.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    runs: Arc<Mutex<HashMap<RunName, Arc<Slot>>>>,
    announcements: Announcements,
}

/// One run.
struct Slot {
    run: Mutex<Run>,
    partitions: Vec<Mutex<Partition>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<MemoryStore> {
        Arc::new(MemoryStore {
            clock,
            runs: Arc::default(),
            announcements: Announcements::new(),
        })
    }

    /// The same store for another daemon in this process, which then misses no announcement while it is busy.
    pub fn another(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore {
            clock: self.clock.clone(),
            runs: self.runs.clone(),
            announcements: self.announcements.another(),
        })
    }

    fn now(&self) -> Reference {
        self.clock.reference()
    }

    fn slot(&self, run: &RunName) -> Result<Arc<Slot>, Error> {
        let unknown = || Error::Run {
            run: run.clone(),
            cause: "unknown".to_owned(),
        };
        lock(&self.runs).get(run).cloned().ok_or_else(unknown)
    }

    /// Does one atomic step in a run's record or roster.
    fn in_run<T>(&self, run: &RunName, step: impl FnOnce(&mut Run, Reference) -> T) -> Result<T, Error> {
        let slot = self.slot(run)?;
        let mut state = lock(&slot.run);
        Ok(step(&mut state, self.now()))
    }

    /// Does one atomic step in a partition.
    fn within<T>(
        &self,
        run: &RunName,
        partition: PartitionId,
        step: impl FnOnce(&mut Partition, Reference) -> T,
    ) -> Result<T, Error> {
        let slot = self.slot(run)?;
        let Some(state) = slot.partitions.get(usize::from(partition.0)) else {
            return Err(Error::Run {
                run: run.clone(),
                cause: format!("without a partition {partition}"),
            });
        };
        let mut state = lock(state);
        Ok(step(&mut state, self.now()))
    }

    fn announce_free(&self, run: &RunName, partition: PartitionId, free: u64) {
        if free > 0 {
            self.announcements.announce(Change::Free(run.clone(), partition));
        }
    }
}

/// No step leaves a state half done, so one that panicked elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Registry for MemoryStore {
    async fn open_run(&self, request: &OpenRun) -> Result<RunRecord, Error> {
        let now = self.now();
        let mut runs = lock(&self.runs);
        let newest_open = || {
            let records = runs.values().map(|slot| lock(&slot.run).record.clone());
            let open = records.filter(|record| record.state == RunState::Open);
            open.max_by_key(|record| record.opened_at).map(|record| record.run)
        };
        let name = match request.run.clone().or_else(newest_open) {
            Some(name) => name,
            None => {
                let mut attempt = 1;
                loop {
                    let name = name_at(now, attempt)?;
                    if !runs.contains_key(&name) {
                        break name;
                    }
                    attempt += 1;
                }
            }
        };
        if let Some(slot) = runs.get(&name) {
            let record = lock(&slot.run).record.clone();
            record.must_agree(&request.pins)?;
            record.must_be_open()?;
            return Ok(record);
        }
        let run = Run::open(name.clone(), request, now);
        let record = run.record.clone();
        let partition = || Mutex::new(Partition::new(&request.pins));
        let partitions = (0..request.pins.partitions).map(|_| partition()).collect();
        runs.insert(
            name.clone(),
            Arc::new(Slot {
                run: Mutex::new(run),
                partitions,
            }),
        );
        self.announcements.announce(Change::Run(name));
        Ok(record)
    }

    async fn runs(&self) -> Result<Vec<RunRecord>, Error> {
        let mut records: Vec<_> = lock(&self.runs)
            .values()
            .map(|slot| lock(&slot.run).record.clone())
            .collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.opened_at));
        Ok(records)
    }

    async fn run(&self, run: &RunName) -> Result<Option<RunRecord>, Error> {
        let slot = lock(&self.runs).get(run).cloned();
        Ok(slot.map(|slot| lock(&slot.run).record.clone()))
    }

    async fn advance_run(&self, run: &RunName, to: RunState) -> Result<bool, Error> {
        let (before, stands) = self.in_run(run, |run, now| (run.record.state, run.advance(to, now)))?;
        if stands && before < to {
            self.announcements.announce(Change::Run(run.clone()));
        }
        Ok(stands)
    }

    async fn mark_restored(&self, run: &RunName) -> Result<(), Error> {
        self.in_run(run, |run, _| run.record.restored = true)
    }

    async fn note(&self, run: &RunName, note: &Note) -> Result<(), Error> {
        self.in_run(run, |run, _| run.note(note))
    }

    async fn omit(&self, run: &RunName, daemon: DaemonId, total: u64) -> Result<(), Error> {
        self.in_run(run, |run, _| run.omit(daemon, total))
    }

    async fn notes(&self, run: &RunName) -> Result<(Vec<Note>, u64), Error> {
        self.in_run(run, |run, _| run.notes())
    }

    async fn purge(&self, run: &RunName) -> Result<(), Error> {
        lock(&self.runs).remove(run);
        Ok(())
    }

    async fn enlist(&self, run: &RunName, daemon: DaemonId, role: Role, wish: Option<u32>) -> Result<u32, Error> {
        self.in_run(run, |run, now| run.enlist(daemon, role, wish, now))?
    }

    async fn discharge(&self, run: &RunName, daemon: DaemonId) -> Result<(), Error> {
        self.in_run(run, |run, _| run.discharge(daemon))
    }

    async fn roster(&self, run: &RunName) -> Result<Vec<Member>, Error> {
        self.in_run(run, |run, _| run.roster())
    }

    async fn expel(&self, run: &RunName, daemon: DaemonId, counter: u64) -> Result<bool, Error> {
        self.in_run(run, |run, _| run.expel(daemon, counter))
    }

    async fn register(
        &self,
        run: &RunName,
        partition: PartitionId,
        daemon: DaemonId,
        devices: &[DeviceState],
    ) -> Result<(), Error> {
        let free = self.within(run, partition, |state, now| {
            state.register(daemon, devices, now);
            state.free()
        })?;
        self.announce_free(run, partition, free);
        Ok(())
    }

    async fn devices(&self, run: &RunName, partition: PartitionId) -> Result<Vec<DeviceState>, Error> {
        self.within(run, partition, |state, _| state.devices())
    }

    async fn topics(&self, run: &RunName, partition: PartitionId) -> Result<Vec<TopicState>, Error> {
        self.within(run, partition, |state, _| state.topics())
    }

    async fn free(&self, run: &RunName) -> Result<Vec<(PartitionId, u64)>, Error> {
        let slot = self.slot(run)?;
        let counts = slot
            .partitions
            .iter()
            .enumerate()
            .map(|(id, state)| (PartitionId(id as u16), lock(state).free()));
        Ok(counts.filter(|(_, free)| *free > 0).collect())
    }

    async fn claim(
        &self,
        run: &RunName,
        partition: PartitionId,
        daemon: DaemonId,
        room: usize,
    ) -> Result<Vec<Claimed>, Error> {
        self.within(run, partition, |state, now| state.claim(daemon, room, now))
    }

    async fn ready(
        &self,
        run: &RunName,
        partition: PartitionId,
        daemon: DaemonId,
        topics: &[(Topic, Token)],
    ) -> Result<Vec<Topic>, Error> {
        let lost = self.within(run, partition, |state, now| state.ready(daemon, topics, now))?;
        self.announcements.announce(Change::Ready(run.clone(), partition));
        Ok(lost)
    }

    async fn give_back(
        &self,
        run: &RunName,
        partition: PartitionId,
        daemon: DaemonId,
        topics: &[GivenBack],
        left: Left,
    ) -> Result<(), Error> {
        let free = self.within(run, partition, |state, now| {
            state.give_back(daemon, topics, left, now);
            state.free()
        })?;
        self.announce_free(run, partition, free);
        Ok(())
    }

    async fn renew(
        &self,
        run: &RunName,
        daemon: DaemonId,
        partitions: &[PartitionId],
    ) -> Result<(bool, Vec<Renewal>), Error> {
        let stood = self.in_run(run, |run, now| run.renew(daemon, now))?;
        let mut renewals = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let held = self.within(run, partition, |state, now| state.renew(daemon, now))?;
            renewals.push(Renewal {
                partition,
                alive: held.is_some(),
                claims: held.unwrap_or_default(),
            });
        }
        Ok((stood, renewals))
    }

    async fn leases(
        &self,
        run: &RunName,
        partitions: &[PartitionId],
    ) -> Result<Vec<(PartitionId, DaemonId, u64)>, Error> {
        let mut rows = Vec::new();
        for &partition in partitions {
            self.within(run, partition, |state, _| {
                rows.extend(state.leases().map(|(daemon, counter)| (partition, daemon, counter)));
            })?;
        }
        Ok(rows)
    }

    async fn evict(&self, run: &RunName, partition: PartitionId, dead: DaemonId, counter: u64) -> Result<bool, Error> {
        let (done, free) = self.within(run, partition, |state, now| {
            (state.evict(dead, counter, now), state.free())
        })?;
        if done {
            self.announce_free(run, partition, free);
        }
        Ok(done)
    }

    async fn release(&self, run: &RunName, partition: PartitionId, daemon: DaemonId) -> Result<(), Error> {
        self.within(run, partition, |state, _| state.release(daemon))
    }

    async fn changes(&self, timeout: Duration) -> Result<Vec<Change>, Error> {
        Ok(self.announcements.wait(timeout).await)
    }
}
