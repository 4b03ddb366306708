//! Runs and their rosters. All runs are listed in `isochrone:{runs}:index`, by the time they were added.

use std::time::Duration;

use isochrone_model::{
    id::{DaemonId, Partition, RunName},
    time::Reference,
};
use redis::Value;

use super::{
    RedisStore,
    reply::{corrupt, daemon, parse, read, reference_us, words},
    scripts::{ADVANCE_RUN, Call, ENLIST, INDEX, LEAVE, MARK_RESTORED, NAME, NOTE, OMIT, OPEN, PURGE},
    unknown,
};
use crate::{
    Error,
    run::name_at,
    types::{Member, Note, OpenRun, Pins, Role, RunRecord, RunState},
};

const INDEX_PREFIX: &str = "isochrone:{runs}:";

/// A run that was listed longer ago than this and has no record is gone; before, it may be about to be opened.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// Everything listed.
struct Listing {
    now: Reference,
    /// Newest first.
    runs: Vec<Listed>,
}

struct Listed {
    run: RunName,
    added: Reference,
    record: Option<RunRecord>,
}

impl RedisStore {
    pub(super) async fn open(&self, request: &OpenRun) -> Result<RunRecord, Error> {
        let Some(name) = &request.run else {
            return self.open_unnamed(request).await;
        };
        let now = self.connection.call(Call::script(&INDEX, INDEX_PREFIX)).await?;
        let (_, now): (Value, String) = read("index", now)?;
        let list = Call::plain("ZADD", &format!("{INDEX_PREFIX}index"))
            .arg("NX")
            .arg(now)
            .arg(name.as_str());
        self.connection.call(list).await?;
        self.join(name, request).await
    }

    /// Joins the newest open run, or adds one under a name nobody has: the list decides who adds it.
    async fn open_unnamed(&self, request: &OpenRun) -> Result<RunRecord, Error> {
        loop {
            let listing = self.listing().await?;
            if let Some(open) = listing.runs.iter().find(|listed| listed.may_be_open(listing.now)) {
                match self.join(&open.run, request).await {
                    // It moved on since it was listed.
                    Err(Error::Run { .. }) => continue,
                    joined => return joined,
                }
            }
            let newest = listing.runs.first().map_or("", |listed| listed.run.as_str());
            let call = Call::script(&NAME, INDEX_PREFIX)
                .arg("")
                .arg("")
                .arg("")
                .arg(newest)
                .arg(name_at(listing.now, 1)?.as_str());
            let name: Option<String> = read("index", self.connection.call(call).await?)?;
            if let Some(name) = name {
                return self.join(&parse("index", &name)?, request).await;
            }
        }
    }

    async fn join(&self, run: &RunName, request: &OpenRun) -> Result<RunRecord, Error> {
        let call = self
            .run_place(run, request.keep.as_millis() as u64)
            .call(&OPEN)
            .arg(request.pins.schema)
            .arg(request.pins.partitions)
            .arg(&request.pins.claim_unit);
        let record = record(run, self.connection.call(call).await?)?.ok_or_else(|| unknown(run))?;
        record.must_agree(&request.pins)?;
        record.must_be_open()?;
        self.remember(&record);
        Ok(record)
    }

    async fn listing(&self) -> Result<Listing, Error> {
        let answer = self.connection.call(Call::script(&INDEX, INDEX_PREFIX)).await?;
        let (names, now): (Vec<(String, String)>, String) = read("index", answer)?;
        let calls: Vec<Call> = names.iter().map(|(name, _)| record_call(name)).collect();
        let records = if calls.is_empty() {
            Vec::new()
        } else {
            self.connection.pipeline(&calls).await?
        };
        let mut runs = Vec::with_capacity(names.len());
        for ((name, added), answer) in names.iter().zip(records) {
            let run = parse("index", name)?;
            let record = record(&run, answer)?;
            runs.push(Listed {
                run,
                added: reference_us(added)?,
                record,
            });
        }
        Ok(Listing {
            now: reference_us(&now)?,
            runs,
        })
    }

    pub(super) async fn all(&self) -> Result<Vec<RunRecord>, Error> {
        let listing = self.listing().await?;
        let gone: Vec<&str> = listing
            .runs
            .iter()
            .filter(|listed| listed.is_gone(listing.now))
            .map(|listed| listed.run.as_str())
            .collect();
        if !gone.is_empty() {
            self.connection
                .call(Call::plain("ZREM", &format!("{INDEX_PREFIX}index")).arg(gone))
                .await?;
        }
        let mut records: Vec<RunRecord> = listing.runs.into_iter().filter_map(|listed| listed.record).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.opened_at));
        Ok(records)
    }

    pub(super) async fn record(&self, run: &RunName) -> Result<Option<RunRecord>, Error> {
        record(run, self.connection.call(record_call(run.as_str())).await?)
    }

    pub(super) async fn advance_state(&self, run: &RunName, to: RunState) -> Result<bool, Error> {
        let answer = self.in_run(run, &ADVANCE_RUN, |call| call.arg(to.as_str())).await?;
        read::<Option<bool>>("run", answer)?.ok_or_else(|| unknown(run))
    }

    pub(super) async fn set_restored(&self, run: &RunName) -> Result<(), Error> {
        let answer = self.in_run(run, &MARK_RESTORED, |call| call).await?;
        read::<Option<bool>>("run", answer)?
            .map(drop)
            .ok_or_else(|| unknown(run))
    }

    pub(super) async fn add_note(&self, run: &RunName, note: &Note) -> Result<(), Error> {
        let json = serde_json::to_string(note).map_err(|error| corrupt("notes", error))?;
        let fill = |call: Call| call.arg(note.key()).arg(json).arg(Note::MOST);
        let answer = self.in_run(run, &NOTE, fill).await?;
        read::<Option<bool>>("notes", answer)?
            .map(drop)
            .ok_or_else(|| unknown(run))
    }

    pub(super) async fn add_omitted(&self, run: &RunName, daemon: DaemonId, total: u64) -> Result<(), Error> {
        let fill = |call: Call| call.arg(daemon.to_string()).arg(total);
        let answer = self.in_run(run, &OMIT, fill).await?;
        read::<Option<bool>>("notes", answer)?
            .map(drop)
            .ok_or_else(|| unknown(run))
    }

    pub(super) async fn all_notes(&self, run: &RunName) -> Result<(Vec<Note>, u64), Error> {
        let place = self.run_place(run, self.known(run).await?.keep_ms);
        let answer = self
            .connection
            .call(Call::plain("HGETALL", &place.key("notes")))
            .await?;
        let fields: Vec<(String, String)> = read("notes", answer)?;
        let (mut notes, mut omitted) = (Vec::new(), 0);
        for (key, value) in fields {
            if key.starts_with("omitted") {
                omitted += parse::<u64>("notes", &value)?;
            } else {
                notes.push(serde_json::from_str(&value).map_err(|error| corrupt("notes", error))?);
            }
        }
        Ok((notes, omitted))
    }

    pub(super) async fn delete(&self, run: &RunName) -> Result<(), Error> {
        let record = self.record(run).await?;
        if let Some(record) = &record {
            let known = self.remember(record);
            let places = (0..known.partitions).map(|partition| self.place(run, Partition(partition), known));
            let calls: Vec<Call> = places.map(|place| place.call(&PURGE)).collect();
            self.connection.pipeline(&calls).await?;
        }
        // The record goes last: a purge that broke off can be repeated.
        let place = self.run_place(run, 0);
        let keys = Call::plain("UNLINK", &place.key("roster"))
            .arg(place.key("clock"))
            .arg(place.key("notes"))
            .arg(place.key("run"));
        self.connection.call(keys).await?;
        let list = Call::plain("ZREM", &format!("{INDEX_PREFIX}index")).arg(run.as_str());
        self.connection.call(list).await?;
        self.forget(run);
        Ok(())
    }

    pub(super) async fn enter(
        &self,
        run: &RunName,
        daemon: DaemonId,
        role: Role,
        wish: Option<u32>,
    ) -> Result<u32, Error> {
        let wish = wish.map(|wish| wish.to_string()).unwrap_or_default();
        let fill = |call: Call| call.arg(daemon.to_string()).arg(role.as_str()).arg(wish);
        let answer: Option<String> = read("roster", self.in_run(run, &ENLIST, fill).await?)?;
        match answer.ok_or_else(|| unknown(run))?.as_str() {
            state @ ("draining" | "closed") => Err(Error::Run {
                run: run.clone(),
                cause: format!("{state}: no producer may join"),
            }),
            ordinal => parse("roster", ordinal),
        }
    }

    pub(super) async fn end(&self, run: &RunName, daemon: DaemonId) -> Result<(), Error> {
        self.in_run(run, &LEAVE, |call| call.arg(daemon.to_string()).arg("ended"))
            .await
            .map(drop)
    }

    pub(super) async fn vanish(&self, run: &RunName, daemon: DaemonId, counter: u64) -> Result<bool, Error> {
        let fill = |call: Call| call.arg(daemon.to_string()).arg("vanished").arg(counter);
        read("roster", self.in_run(run, &LEAVE, fill).await?)
    }

    pub(super) async fn members(&self, run: &RunName) -> Result<Vec<Member>, Error> {
        let place = self.run_place(run, self.known(run).await?.keep_ms);
        let answer = self
            .connection
            .call(Call::plain("HGETALL", &place.key("roster")))
            .await?;
        let rows: Vec<(String, String)> = read("roster", answer)?;
        rows.iter().map(|(id, row)| member(daemon(id)?, row)).collect()
    }
}

impl Listed {
    fn may_be_open(&self, now: Reference) -> bool {
        match &self.record {
            Some(record) => record.state == RunState::Open,
            None => !self.is_gone(now),
        }
    }

    fn is_gone(&self, now: Reference) -> bool {
        self.record.is_none() && now.since_ns(self.added) > OPENED_WITHIN.as_nanos() as i64
    }
}

fn record_call(run: &str) -> Call {
    Call::plain("HGETALL", &format!("isochrone:{{{run}}}:run"))
}

fn record(run: &RunName, answer: Value) -> Result<Option<RunRecord>, Error> {
    let fields: std::collections::HashMap<String, String> = read("run", answer)?;
    if fields.is_empty() {
        return Ok(None);
    }
    let field = |name: &str| {
        fields
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| corrupt("run", format!("no {name}")))
    };
    Ok(Some(RunRecord {
        run: run.clone(),
        pins: Pins {
            schema: parse("run", field("schema")?)?,
            partitions: parse("run", field("partitions")?)?,
            claim_unit: field("claim_unit")?.to_owned(),
        },
        state: RunState::named(field("state")?).ok_or_else(|| corrupt("run", "an unknown state"))?,
        opened_at: reference_us(field("opened_us")?)?,
        closed_at: fields.get("closed_us").map(|us| reference_us(us)).transpose()?,
        keep: Duration::from_millis(parse("run", field("keep_ms")?)?),
        restored: fields.contains_key("restored"),
    }))
}

fn member(daemon: DaemonId, row: &str) -> Result<Member, Error> {
    let [role, ordinal, counter, joined, standing] = words("roster", row)?;
    Ok(Member {
        daemon,
        role: Role::named(&role).ok_or_else(|| corrupt("roster", role))?,
        ordinal: parse("roster", &ordinal)?,
        counter: parse("roster", &counter)?,
        joined: parse("roster", &joined)?,
        ended: standing == "ended",
        vanished: standing == "vanished",
    })
}
