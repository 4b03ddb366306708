//! Reading what was counted.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use isochrone_model::{
    id::{Epoch, Partition, RunName, Topic},
    row::SendRow,
};
use redis::Value;

use super::{
    RedisStore,
    reply::{self, corrupt, parse, read, reference_us, token, words},
    samples,
    scripts::{BURY, Call, SETTLE, SNAPSHOT},
};
use crate::{
    Error, Ledgers,
    types::{DeviceState, PartitionSnapshot, TopicState, TopicStatus},
};

#[async_trait]
impl Ledgers for RedisStore {
    async fn snapshot(&self, run: &RunName, partition: Partition) -> Result<PartitionSnapshot, Error> {
        self.read_partition(run, partition, "all").await
    }

    async fn settle(&self, run: &RunName, partition: Partition, topic: &Topic, state: &[u8]) -> Result<bool, Error> {
        let fill = |call: Call| call.arg(topic.as_str()).arg(state);
        read("closed", self.within(run, partition, &SETTLE, fill).await?)
    }

    async fn bury(&self, run: &RunName, partition: Partition, epoch: Epoch, row: &SendRow) -> Result<(), Error> {
        let row = reply::row(row)?;
        self.within(run, partition, &BURY, |call| call.arg(epoch.to_string()).arg(row))
            .await
            .map(drop)
    }
}

/// Topics, closed ones, held ones (daemon, topic, value), left, counts: as `snapshot.lua` answers.
type Topics = (
    Vec<String>,
    HashSet<String>,
    Vec<String>,
    HashMap<String, String>,
    HashMap<String, String>,
);

impl RedisStore {
    /// The parts of a snapshot that are `wanted` (`devices`, `topics` or `all`); the others stay empty.
    pub(super) async fn read_partition(
        &self,
        run: &RunName,
        partition: Partition,
        wanted: &str,
    ) -> Result<PartitionSnapshot, Error> {
        let place = self.place(run, partition, self.known(run).await?);
        let call = place.call(&SNAPSHOT).arg(wanted);
        let answer = self.connection.call_for_much(call).await?;
        let (registered, claimed, counted): (Value, Topics, Vec<Value>) = read("snapshot", answer)?;
        let [states, cumulative, cut, cursors, pending, behind, unplotted, shed] =
            counted.try_into().map_err(|_| corrupt("snapshot", "not eight parts"))?;
        let states = reply::fields("states", states)?;
        let cursors: Vec<(String, String)> = read("cursors", cursors)?;
        let pending: Vec<(String, u64)> = read("latency", pending)?;
        let behind: Vec<(String, Vec<(String, u64)>)> = read("latency", behind)?;
        Ok(PartitionSnapshot {
            devices: devices(registered)?,
            topics: topics(claimed)?,
            states: states
                .into_iter()
                .map(|(topic, state)| (reply::topic(&topic), state))
                .collect::<Vec<(_, Bytes)>>(),
            cumulative: reply::fields("cumulative", cumulative)?,
            cut: read::<Option<String>>("cuts", cut)?
                .map(|text| samples::cut(&text))
                .transpose()?,
            cursors: cursors
                .into_iter()
                .map(|(sink, text)| Ok((sink, samples::cursor(&text)?)))
                .collect::<Result<_, Error>>()?,
            pending: by_topic(pending),
            behind: behind
                .into_iter()
                .map(|(sink, samples)| (sink, by_topic(samples)))
                .filter(|(_, samples)| !samples.is_empty())
                .collect(),
            unplotted: by_epoch(read("latency", unplotted)?),
            shed: by_epoch(read("shed", shed)?),
        })
    }
}

fn by_topic(samples: Vec<(String, u64)>) -> Vec<(Topic, u64)> {
    let named = samples.into_iter();
    named.map(|(topic, samples)| (reply::topic(&topic), samples)).collect()
}

/// A key that is no epoch is not of a producer's making: the registry knows no device for it.
fn by_epoch(messages: Vec<(String, u64)>) -> Vec<(Epoch, u64)> {
    let named = messages.into_iter();
    named
        .filter_map(|(epoch, messages)| Some((epoch.parse().ok()?, messages)))
        .collect()
}

fn devices(answer: Value) -> Result<Vec<DeviceState>, Error> {
    type Hash = Vec<(String, Vec<u8>)>;
    let (registrations, rows): (Hash, Hash) = read("devices", answer)?;
    let rows: HashMap<String, Vec<u8>> = rows.into_iter().collect();
    let device = |(epoch, registration): &(String, Vec<u8>)| match rows.get(epoch) {
        Some(row) => reply::device(registration, row),
        None => Err(corrupt("rows", format!("no row of {epoch}"))),
    };
    let mut devices = registrations.iter().map(device).collect::<Result<Vec<_>, _>>()?;
    devices.sort_by_key(|state| state.device.epoch);
    Ok(devices)
}

fn topics((names, closed, held, left, counts): Topics) -> Result<Vec<TopicState>, Error> {
    let mut claims = HashMap::new();
    for claim in held.chunks_exact(3) {
        let [holds, ready_us, _] = words("claims", &claim[2])?;
        claims.insert(claim[1].clone(), (reply::daemon(&claim[0])?, token(&holds)?, ready_us));
    }
    let mut topics = Vec::with_capacity(names.len());
    for name in names {
        let (left, left_at) = reply::left(left.get(&name).map_or("never 0", String::as_str))?;
        let (stored, dropped) = reply::counts(counts.get(&name).map(String::as_str))?;
        let (status, holder, since) = match claims.get(&name) {
            Some((daemon, token, ready_us)) => {
                let ready = parse::<u64>("claims", ready_us)? > 0;
                let status = if ready {
                    TopicStatus::Ready
                } else {
                    TopicStatus::Claimed
                };
                let since = if ready { reference_us(ready_us)? } else { left_at };
                (status, Some((*daemon, *token)), since)
            }
            None if closed.contains(&name) => (TopicStatus::Closed, None, left_at),
            None => (TopicStatus::Free, None, left_at),
        };
        topics.push(TopicState {
            topic: reply::topic(&name),
            status,
            holder,
            left,
            since,
            stored,
            dropped,
        });
    }
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    Ok(topics)
}
