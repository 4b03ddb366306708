//! The stream of samples and the plotter's work on it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use isochrone_model::{
    id::{DaemonId, Partition, RunName, Token},
    time::Second,
};
use redis::Value;

use super::{
    RedisStore,
    reply::{self, corrupt, parse, read, token, words},
    scripts::{ADVANCE, APPEND, APPEND_SENDS, CUT, Call, FINISH, HOLD, LET_GO, RETAIN, Script},
};
use crate::{
    Error, Samples, partition,
    types::{
        Advance, Cursor, Cut, Entry, EntryId, EntryKind, FlushAnswer, Holder, NewCut, NewEntry, NewPart, PlotterClaim,
        ReceiptFlush, SendFlush,
    },
};

#[async_trait]
impl Samples for RedisStore {
    async fn append(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        flush: &ReceiptFlush,
    ) -> Result<FlushAnswer, Error> {
        let limit = partition::RETAIN / u64::from(self.known(run).await?.partitions.max(1));
        let fill = |call: Call| {
            let call = call
                .arg(daemon.to_string())
                .arg(flush.batch)
                .arg(limit)
                .arg(flush.states.len());
            let call = flush.states.iter().fold(call, |call, save| {
                call.arg(save.topic.as_str())
                    .arg(save.token.0)
                    .arg(save.total_before)
                    .arg(&save.state[..])
            });
            add_entries(call, &flush.entries)
        };
        flush_answer(self.within(run, partition, &APPEND, fill).await?)
    }

    async fn append_sends(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        flush: &SendFlush,
    ) -> Result<FlushAnswer, Error> {
        let limit = partition::RETAIN / u64::from(self.known(run).await?.partitions.max(1));
        let mut rows = Vec::with_capacity(flush.rows.len());
        for (epoch, row) in &flush.rows {
            rows.push((epoch.to_string(), reply::row(row)?));
        }
        let fill = |call: Call| {
            let last_word = u8::from(flush.is_last_word());
            let call = call
                .arg(daemon.to_string())
                .arg(flush.batch)
                .arg(limit)
                .arg(last_word)
                .arg(rows.len());
            let call = rows
                .into_iter()
                .fold(call, |call, (epoch, row)| call.arg(epoch).arg(row));
            add_entries(call, &flush.entries)
        };
        match self.within(run, partition, &APPEND_SENDS, fill).await? {
            Value::Nil => Err(Error::Fenced),
            answer => flush_answer(answer),
        }
    }

    async fn entries(
        &self,
        run: &RunName,
        partition: Partition,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let place = self.place(run, partition, self.known(run).await?);
        let call = Call::plain("XRANGE", &place.key("latency"))
            .arg(format!("({}-{}", after.0, after.1))
            .arg("+")
            .arg("COUNT")
            .arg(limit);
        let answer = self.connection.call_for_much(call).await?;
        let entries: Vec<(String, Vec<Vec<u8>>)> = read("latency", answer)?;
        entries.into_iter().map(|(id, fields)| entry(&id, fields)).collect()
    }

    async fn hold(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        sinks: &[String],
    ) -> Result<Option<PlotterClaim>, Error> {
        let place = self.place(run, partition, self.known(run).await?);
        let call = place.call(&HOLD).arg(daemon.to_string());
        let call = sinks.iter().fold(call, |call, sink| call.arg(sink.as_str()));
        let answer = self.connection.call_for_much(call).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let (holds, cuts, cumulative, cursors): (String, Vec<String>, Value, BTreeMap<String, String>) =
            read("plotter", answer)?;
        Ok(Some(PlotterClaim {
            token: token(&holds)?,
            cuts: cuts.iter().map(|text| cut(text)).collect::<Result<_, _>>()?,
            cumulative: reply::fields("cumulative", cumulative)?,
            cursors: cursors
                .into_iter()
                .map(|(sink, text)| Ok((sink, cursor(&text)?)))
                .collect::<Result<_, Error>>()?,
        }))
    }

    async fn holders(&self, run: &RunName, partitions: &[Partition]) -> Result<Vec<(Partition, Holder)>, Error> {
        let mut holders = Vec::new();
        for (&partition, answer) in partitions
            .iter()
            .zip(self.of_each(run, partitions, "GET", "plotter").await?)
        {
            if let Some(holder) = read::<Option<String>>("plotter", answer)? {
                holders.push((partition, reply::holder(&holder)?));
            }
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
        let fill = |call: Call| {
            let call = call.arg(cut_text(&cut.cut));
            cut.changed
                .iter()
                .fold(call, |call, (field, value)| call.arg(field).arg(&value[..]))
        };
        self.plot(run, partition, daemon, token, &CUT, fill).await
    }

    async fn advance(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        token: Token,
        advance: Advance<'_>,
    ) -> Result<Option<Cursor>, Error> {
        let text = cursor_text(advance.cursor)?;
        let fill = |call: Call| {
            let call = call.arg(daemon.to_string()).arg(token.0);
            let call = call.arg(advance.sink).arg(text).arg(advance.known);
            advance
                .delete
                .iter()
                .fold(call, |call, id| call.arg(format!("{}-{}", id.0, id.1)))
        };
        let answer: Option<String> = read("cursors", self.within(run, partition, &ADVANCE, fill).await?)?;
        let moved = answer.ok_or(Error::Fenced)?;
        (!moved.is_empty()).then(|| cursor(&moved)).transpose()
    }

    async fn retain(&self, run: &RunName, partition: Partition, bytes: u64) -> Result<(), Error> {
        self.within(run, partition, &RETAIN, |call| call.arg(bytes))
            .await
            .map(drop)
    }

    async fn let_go(&self, run: &RunName, partition: Partition, daemon: DaemonId, token: Token) -> Result<(), Error> {
        let fill = |call: Call| call.arg(daemon.to_string()).arg(token.0);
        self.within(run, partition, &LET_GO, fill).await.map(drop)
    }

    async fn finish(&self, run: &RunName, partition: Partition, daemon: DaemonId, token: Token) -> Result<(), Error> {
        self.plot(run, partition, daemon, token, &FINISH, |call| call).await
    }
}

impl RedisStore {
    /// A plotter's write: fenced when its hold is lost.
    async fn plot(
        &self,
        run: &RunName,
        partition: Partition,
        daemon: DaemonId,
        token: Token,
        script: &'static Script,
        fill: impl FnOnce(Call) -> Call,
    ) -> Result<(), Error> {
        let fill = |call: Call| fill(call.arg(daemon.to_string()).arg(token.0));
        let holds: bool = read("plotter", self.within(run, partition, script, fill).await?)?;
        if holds { Ok(()) } else { Err(Error::Fenced) }
    }
}

fn add_entries(call: Call, entries: &[NewEntry]) -> Call {
    entries.iter().fold(call, |call, entry| {
        let kind = match entry.kind {
            EntryKind::Receipt => "R",
            EntryKind::Send => "S",
        };
        let call = call
            .arg(kind)
            .arg(entry.second.0)
            .arg(&entry.head[..])
            .arg(entry.parts.len());
        entry.parts.iter().fold(call, |call, part| {
            call.arg(&part.key)
                .arg(part.token.0)
                .arg(part.samples)
                .arg(&part.body[..])
        })
    })
}

/// Batch, entries left out, fenced topics: as `append.lua` answers.
fn flush_answer(answer: Value) -> Result<FlushAnswer, Error> {
    let answer: Vec<Value> = read("batches", answer)?;
    let mut answer = answer.into_iter().skip(1);
    let shed = read("batches", answer.next().unwrap_or(Value::Int(0)))?;
    let fenced = answer.map(|topic| Ok(reply::topic(&read::<String>("batches", topic)?)));
    Ok(FlushAnswer {
        fenced: fenced.collect::<Result<_, Error>>()?,
        shed,
    })
}

/// Names and values by turns: v, daemon, batch, kind, second, head, then the parts.
fn entry(id: &str, fields: Vec<Vec<u8>>) -> Result<Entry, Error> {
    let mut fields = fields.into_iter();
    let mut pair = || Some((fields.next()?, fields.next()?));
    let mut head = |name: &str| match pair() {
        Some((field, value)) if field == name.as_bytes() => Ok(value),
        _ => Err(corrupt("latency", format!("entry {id} has no {name}"))),
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| corrupt("latency", error));
    if head("v")? != b"1" {
        return Err(corrupt("latency", format!("entry {id} is of another version")));
    }
    let daemon = reply::daemon(&text(head("daemon")?)?)?;
    let batch = parse("latency", &text(head("batch")?)?)?;
    let kind = match head("kind")?.as_slice() {
        b"R" => EntryKind::Receipt,
        b"S" => EntryKind::Send,
        _ => return Err(corrupt("latency", format!("entry {id} is of another kind"))),
    };
    let second = Second(parse("latency", &text(head("second")?)?)?);
    let head = Bytes::from(head("head")?);
    let mut parts = Vec::new();
    while let Some((key, value)) = pair() {
        parts.push(part(text(key)?, value)?);
    }
    Ok(Entry {
        id: entry_id(id)?,
        daemon,
        batch,
        entry: NewEntry {
            kind,
            second,
            head,
            parts,
        },
    })
}

/// `token samples ` and the body.
fn part(key: String, value: Vec<u8>) -> Result<NewPart, Error> {
    let mut words = value.splitn(3, |byte| *byte == b' ');
    let mut number = || {
        let word = words.next().and_then(|word| std::str::from_utf8(word).ok());
        parse::<u64>("latency", word.unwrap_or_default())
    };
    let (token, samples) = (Token(number()?), number()?);
    let start = value.len() - words.next().map_or(0, <[u8]>::len);
    Ok(NewPart {
        key,
        token,
        samples,
        body: Bytes::from(value).slice(start..),
    })
}

fn entry_id(text: &str) -> Result<EntryId, Error> {
    let Some((ms, sequence)) = text.split_once('-') else {
        return Err(corrupt("latency", text));
    };
    Ok(EntryId(parse("latency", ms)?, parse("latency", sequence)?))
}

/// `number ms sequence second`.
pub(super) fn cut(text: &str) -> Result<Cut, Error> {
    let [number, ms, sequence, second] = words("cuts", text)?;
    Ok(Cut {
        number: parse("cuts", &number)?,
        last: EntryId(parse("cuts", &ms)?, parse("cuts", &sequence)?),
        second: Second(parse("cuts", &second)?),
    })
}

fn cut_text(cut: &Cut) -> String {
    format!("{} {} {} {}", cut.number, cut.last.0, cut.last.1, cut.second.0)
}

/// `cut JSON`: the cut also in front, where scripts read it.
pub(super) fn cursor(text: &str) -> Result<Cursor, Error> {
    let [_, json] = words("cursors", text)?;
    serde_json::from_str(&json).map_err(|error| corrupt("cursors", error))
}

fn cursor_text(cursor: &Cursor) -> Result<String, Error> {
    let json = serde_json::to_string(cursor).map_err(|error| corrupt("cursors", error))?;
    Ok(format!("{} {json}", cursor.cut))
}
