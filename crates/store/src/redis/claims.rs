//! Devices, response topics, claims and leases.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use isochrone_model::id::{DaemonId, Partition, RunName, Token, Topic};
use redis::Value;
use tokio::time::sleep;

use super::{
    RedisStore, ears,
    reply::{self, corrupt, parse, read, token, words},
    scripts::{CLAIM, Call, EVICT, GIVE_BACK, READY, REGISTER, RELEASE, RENEW, RENEW_MEMBER},
};
use crate::{
    Error, Registry,
    types::{
        Change, ClaimEnd, Claimed, DeviceState, GivenBack, Left, Member, Note, OpenRun, Renewal, Role, RunRecord,
        RunState, TopicState,
    },
};

#[async_trait]
impl Registry for RedisStore {
    async fn open_run(&self, request: &OpenRun) -> Result<RunRecord, Error> {
        self.open(request).await
    }

    async fn runs(&self) -> Result<Vec<RunRecord>, Error> {
        self.all().await
    }

    async fn run(&self, run: &RunName) -> Result<Option<RunRecord>, Error> {
        self.record(run).await
    }

    async fn advance_run(&self, run: &RunName, to: RunState) -> Result<bool, Error> {
        self.advance_state(run, to).await
    }

    async fn mark_restored(&self, run: &RunName) -> Result<(), Error> {
        self.set_restored(run).await
    }

    async fn note(&self, run: &RunName, note: &Note) -> Result<(), Error> {
        self.add_note(run, note).await
    }

    async fn omit(&self, run: &RunName, daemon: DaemonId, total: u64) -> Result<(), Error> {
        self.add_omitted(run, daemon, total).await
    }

    async fn notes(&self, run: &RunName) -> Result<(Vec<Note>, u64), Error> {
        self.all_notes(run).await
    }

    async fn purge(&self, run: &RunName) -> Result<(), Error> {
        self.delete(run).await
    }

    async fn enlist(&self, run: &RunName, daemon: DaemonId, role: Role, wish: Option<u32>) -> Result<u32, Error> {
        self.enter(run, daemon, role, wish).await
    }

    async fn discharge(&self, run: &RunName, daemon: DaemonId) -> Result<(), Error> {
        self.end(run, daemon).await
    }

    async fn roster(&self, run: &RunName) -> Result<Vec<Member>, Error> {
        self.members(run).await
    }

    async fn expel(&self, run: &RunName, daemon: DaemonId, counter: u64) -> Result<bool, Error> {
        self.vanish(run, daemon, counter).await
    }

    async fn register(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        devices: &[DeviceState],
    ) -> Result<(), Error> {
        let mut rows = Vec::with_capacity(devices.len());
        for state in devices {
            let registration = serde_json::to_vec(&state.device).map_err(|error| corrupt("devices", error))?;
            rows.push((registration, reply::row(&state.row)?));
        }
        let devices = devices.iter().zip(rows);
        let fill = |call: Call| {
            devices.fold(call.arg(daemon.to_string()), |call, (state, (registration, row))| {
                let device = &state.device;
                call.arg(device.epoch.to_string())
                    .arg(device.response_topic.as_str())
                    .arg(registration)
                    .arg(row)
            })
        };
        self.within(run, partition, &REGISTER, fill).await.map(drop)
    }

    async fn devices(&self, run: &RunName, partition: Partition) -> Result<Vec<DeviceState>, Error> {
        Ok(self.read_partition(run, partition, "devices").await?.devices)
    }

    async fn topics(&self, run: &RunName, partition: Partition) -> Result<Vec<TopicState>, Error> {
        Ok(self.read_partition(run, partition, "topics").await?.topics)
    }

    async fn free(&self, run: &RunName) -> Result<Vec<(Partition, u64)>, Error> {
        let known = self.known(run).await?;
        let partitions: Vec<Partition> = (0..known.partitions).map(Partition).collect();
        let counts = self.of_each(run, &partitions, "SCARD", "free").await?;
        let mut free = Vec::new();
        for (partition, count) in partitions.into_iter().zip(counts) {
            let count: u64 = read("free", count)?;
            if count > 0 {
                free.push((partition, count));
            }
        }
        Ok(free)
    }

    async fn claim(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        room: usize,
    ) -> Result<Vec<Claimed>, Error> {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let whole = u8::from(self.known(run).await?.whole_partitions);
        let fill = |call: Call| call.arg(daemon.to_string()).arg(room).arg(whole);
        let answer = self.within(run, partition, &CLAIM, fill).await?;
        read::<Vec<Claim>>("claims", answer)?.into_iter().map(claimed).collect()
    }

    async fn ready(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        topics: &[(Topic, Token)],
    ) -> Result<Vec<Topic>, Error> {
        let fill = |call: Call| {
            let call = call.arg(daemon.to_string());
            topics
                .iter()
                .fold(call, |call, (topic, token)| call.arg(topic.as_str()).arg(token.0))
        };
        let lost: Vec<String> = read("claims", self.within(run, partition, &READY, fill).await?)?;
        Ok(lost.iter().map(|topic| reply::topic(topic)).collect())
    }

    async fn give_back(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        topics: &[GivenBack],
        left: Left,
    ) -> Result<(), Error> {
        let fill = |call: Call| {
            let call = call.arg(daemon.to_string()).arg(reply::left_name(left));
            topics.iter().fold(call, |call, GivenBack { topic, token, end }| {
                // Every topic has a device: none as settled is none at all.
                let devices = match end {
                    ClaimEnd::Free => 0,
                    ClaimEnd::Settled(devices) => *devices,
                };
                call.arg(topic.as_str()).arg(token.0).arg(devices)
            })
        };
        self.within(run, partition, &GIVE_BACK, fill).await.map(drop)
    }

    async fn renew(
        &self,
        run: &RunName,
        daemon: DaemonId,
        partitions: &[Partition],
    ) -> Result<(bool, Vec<Renewal>), Error> {
        let known = self.known(run).await?;
        let mut calls = Vec::with_capacity(1 + partitions.len());
        calls.push(
            self.run_place(run, known.keep_ms)
                .call(&RENEW_MEMBER)
                .arg(daemon.to_string()),
        );
        let places = partitions.iter().map(|&partition| self.place(run, partition, known));
        calls.extend(places.map(|place| place.call(&RENEW).arg(daemon.to_string())));
        let mut answers = self.connection.pipeline(&calls).await?.into_iter();
        let stood = read("roster", answers.next().unwrap_or_default())?;
        let renewals = partitions
            .iter()
            .zip(answers)
            .map(|(&partition, answer)| renewal(partition, answer));
        Ok((stood, renewals.collect::<Result<_, _>>()?))
    }

    async fn leases(&self, run: &RunName, partitions: &[Partition]) -> Result<Vec<(Partition, DaemonId, u64)>, Error> {
        let mut rows = Vec::new();
        for (&partition, answer) in partitions
            .iter()
            .zip(self.of_each(run, partitions, "HGETALL", "leases").await?)
        {
            for (daemon, counter) in read::<Vec<(String, u64)>>("leases", answer)? {
                rows.push((partition, reply::daemon(&daemon)?, counter));
            }
        }
        Ok(rows)
    }

    async fn evict(&self, run: &RunName, partition: Partition, dead: DaemonId, counter: u64) -> Result<bool, Error> {
        let fill = |call: Call| call.arg(dead.to_string()).arg(counter);
        read("leases", self.within(run, partition, &EVICT, fill).await?)
    }

    async fn release(&self, run: &RunName, partition: Partition, daemon: DaemonId) -> Result<(), Error> {
        self.within(run, partition, &RELEASE, |call| call.arg(daemon.to_string()))
            .await
            .map(drop)
    }

    async fn changes(&self, timeout: Duration) -> Result<Vec<Change>, Error> {
        let Some(announcements) = &self.announcements else {
            sleep(timeout).await;
            return Ok(Vec::new());
        };
        self.listener.get_or_init(|| {
            let listening = ears::listen(self.connection.client(), announcements.sender());
            tokio::spawn(listening).abort_handle()
        });
        Ok(announcements.wait(timeout).await)
    }
}

impl RedisStore {
    /// One command on one key of each partition, in one pipeline.
    pub(super) async fn of_each(
        &self,
        run: &RunName,
        partitions: &[Partition],
        command: &str,
        key: &str,
    ) -> Result<Vec<Value>, Error> {
        let known = self.known(run).await?;
        let places = partitions.iter().map(|&partition| self.place(run, partition, known));
        let calls: Vec<Call> = places.map(|place| Call::plain(command, &place.key(key))).collect();
        self.connection.pipeline(&calls).await
    }
}

/// Topic, token, left, state, counts, registrations and rows by turns: as `claim.lua` answers.
type Claim = (String, String, String, Option<Vec<u8>>, Option<String>, Vec<Vec<u8>>);

fn claimed((topic, holds, left, state, counts, devices): Claim) -> Result<Claimed, Error> {
    let (left, left_at) = reply::left(&left)?;
    let (stored, dropped) = reply::counts(counts.as_deref())?;
    let devices = devices.chunks_exact(2).map(|pair| reply::device(&pair[0], &pair[1]));
    Ok(Claimed {
        topic: reply::topic(&topic),
        token: token(&holds)?,
        devices: devices.collect::<Result<_, _>>()?,
        left,
        left_at,
        state: state.map(Bytes::from),
        stored,
        dropped,
    })
}

fn renewal(partition: Partition, answer: Value) -> Result<Renewal, Error> {
    let held: Option<Vec<(String, String)>> = match answer {
        Value::Nil => None,
        answer => Some(read("claims", answer)?),
    };
    let alive = held.is_some();
    let claims = held.unwrap_or_default().into_iter().map(|(topic, value)| {
        let [holds, _, _] = words("claims", &value)?;
        Ok((reply::topic(&topic), parse("claims", &holds).map(Token)?))
    });
    Ok(Renewal {
        partition,
        alive,
        claims: claims.collect::<Result<_, Error>>()?,
    })
}
