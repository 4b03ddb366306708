//! The stream of entries and the plotter's cuts and cursors.

use std::collections::BTreeMap;

use isochrone_model::{
    id::{DaemonId, Token, Topic},
    time::Reference,
};

use super::{Partition, Plotter, Stream, snapshot::count_sends};
use crate::{
    Error,
    types::{
        Advance, Cursor, Cut, Entry, EntryId, EntryKind, FlushAnswer, NewCut, NewEntry, PlotterClaim, ReceiptFlush,
        SendFlush,
    },
};

impl Partition {
    /// A consumer's flush.
    pub fn append(&mut self, daemon: DaemonId, flush: &ReceiptFlush, now: Reference) -> FlushAnswer {
        if let Some(answer) = self.repeated(daemon, EntryKind::Receipt, flush.batch) {
            return answer;
        }
        let mut answer = FlushAnswer::default();
        for save in &flush.states {
            match self.held(daemon, &save.topic, save.token) {
                Some(row) => {
                    row.used = true;
                    row.dropped += save.total_before.saturating_sub(row.stored + row.dropped);
                    row.state = Some(save.state.clone());
                }
                None => answer.fence(&save.topic),
            }
        }
        for entry in &flush.entries {
            let mut kept = NewEntry {
                parts: Vec::with_capacity(entry.parts.len()),
                ..entry.clone()
            };
            for part in &entry.parts {
                let topic = Topic::from(part.key.as_str());
                match self.held(daemon, &topic, part.token) {
                    Some(_) => kept.parts.push(part.clone()),
                    None => answer.fence(&topic),
                }
            }
            if kept.parts.is_empty() && !entry.parts.is_empty() {
                continue;
            }
            let full = !self.has_room();
            for part in &kept.parts {
                if let Some(row) = self.topics.get_mut(&Topic::from(part.key.as_str())) {
                    *if full { &mut row.dropped } else { &mut row.stored } += part.samples;
                }
            }
            answer.shed += self.write(daemon, flush.batch, kept, now);
        }
        self.batches
            .insert((daemon, EntryKind::Receipt), (flush.batch, answer.clone()));
        answer
    }

    /// A producer's flush.
    pub fn append_sends(&mut self, daemon: DaemonId, flush: &SendFlush, now: Reference) -> Result<FlushAnswer, Error> {
        if let Some(answer) = self.repeated(daemon, EntryKind::Send, flush.batch) {
            return Ok(answer);
        }
        if !self.leases.contains_key(&daemon) && !flush.is_last_word() {
            return Err(Error::Fenced);
        }
        for (epoch, row) in &flush.rows {
            if let Some(state) = self.devices.get_mut(epoch).filter(|state| !state.row.ended) {
                state.row = row.clone();
            }
        }
        let mut answer = FlushAnswer::default();
        for entry in &flush.entries {
            let shed = self.write(daemon, flush.batch, entry.clone(), now);
            if shed > 0 {
                count_sends(&mut self.shed, entry);
            }
            answer.shed += shed;
        }
        self.batches
            .insert((daemon, EntryKind::Send), (flush.batch, answer.clone()));
        Ok(answer)
    }

    fn repeated(&self, daemon: DaemonId, kind: EntryKind, batch: u64) -> Option<FlushAnswer> {
        let (last, answer) = self.batches.get(&(daemon, kind))?;
        // The answers to earlier ones are known to the daemon, which sends one after the other.
        (batch <= *last).then(|| {
            if batch == *last {
                answer.clone()
            } else {
                FlushAnswer::default()
            }
        })
    }

    /// Answers how many entries were left out.
    fn write(&mut self, daemon: DaemonId, batch: u64, entry: NewEntry, now: Reference) -> u64 {
        if !self.has_room() {
            return 1;
        }
        self.stream.push(daemon, batch, entry, now);
        0
    }

    /// Whether an entry may be stored; what slow sinks hold back makes room for it.
    fn has_room(&mut self) -> bool {
        while self.stream.is_full() {
            if !self.drop_oldest_cut() {
                return false;
            }
        }
        true
    }

    /// Drops the oldest cut that the slowest sinks have not passed, for them alone: their cursors move, their samples in
    /// it count. False when every sink has passed every cut.
    fn drop_oldest_cut(&mut self) -> bool {
        let slowest = self.cursors.values().map(|cursor| cursor.cut).min();
        let Some(place) = slowest.and_then(|slowest| self.cuts.iter().position(|cut| cut.number > slowest)) else {
            return false;
        };
        let cuts = &self.cuts[..=place];
        let is_in_it = |entry: &&Entry| {
            let holds = |cut: &Cut| entry.id <= cut.last && entry.entry.second <= cut.second;
            cuts.iter().position(holds) == Some(place)
        };
        let mut samples: BTreeMap<Topic, u64> = BTreeMap::new();
        let mut ids = Vec::new();
        for Entry { id, entry, .. } in self.stream.all().filter(is_in_it) {
            ids.push(*id);
            for part in entry.parts.iter().filter(|_| entry.kind == EntryKind::Receipt) {
                *samples.entry(Topic::from(part.key.as_str())).or_default() += part.samples;
            }
        }
        let number = cuts[place].number;
        for cursor in self.cursors.values_mut().filter(|cursor| cursor.cut < number) {
            cursor.cut = number;
            for (topic, count) in &samples {
                cursor.topics.entry(topic.clone()).or_default().sink_dropped += count;
            }
        }
        self.stream.delete(&ids);
        true
    }

    /// Entries after `after`, oldest first.
    pub fn entries(&self, after: EntryId, limit: usize) -> Vec<Entry> {
        self.stream.after(after).take(limit).cloned().collect()
    }

    /// Bounds the bytes of entries.
    pub fn retain(&mut self, bytes: u64) {
        self.stream.limit = bytes;
    }

    /// Takes the partition for aggregation if nobody holds it and it is not finished.
    pub fn hold(&mut self, daemon: DaemonId, sinks: &[String], now: Reference) -> Option<PlotterClaim> {
        let token = match self.plotter {
            Plotter::Holds(holder, token) if holder == daemon => token,
            Plotter::Holds(..) | Plotter::Finished => return None,
            Plotter::Awaited => Token(self.next(now)),
        };
        self.plotter = Plotter::Holds(daemon, token);
        self.enter(daemon, now);
        let fresh = Cursor::joining(&self.cursors);
        for sink in sinks {
            self.cursors.entry(sink.clone()).or_insert_with(|| fresh.clone());
        }
        Some(PlotterClaim {
            token,
            cuts: self.cuts.clone(),
            cumulative: self
                .cumulative
                .iter()
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect(),
            cursors: self
                .cursors
                .iter()
                .map(|(sink, cursor)| (sink.clone(), cursor.clone()))
                .collect(),
        })
    }

    /// Appends a cut with the cumulative state that includes it.
    pub fn cut(&mut self, daemon: DaemonId, token: Token, new: &NewCut) -> Result<(), Error> {
        self.plotting(daemon, token)?;
        let newest = self.newest_cut().unwrap_or_default();
        if new.cut == newest {
            return Ok(());
        }
        if new.cut.number != newest.number + 1 {
            return Err(Error::Fenced);
        }
        self.cuts.push(new.cut);
        self.cumulative.extend(new.changed.iter().cloned());
        Ok(())
    }

    /// Moves a cursor; deletes cuts before the last that every cursor has passed and the entries named.
    pub fn advance(&mut self, daemon: DaemonId, token: Token, advance: Advance<'_>) -> Result<Option<Cursor>, Error> {
        self.plotting(daemon, token)?;
        let stored = self.cursors.entry(advance.sink.to_owned()).or_default();
        if stored.cut > advance.known {
            return Ok(Some(stored.clone()));
        }
        stored.clone_from(advance.cursor);
        let passed = self.cursors.values().map(|cursor| cursor.cut).min().unwrap_or(0);
        // The last one passed says which entries the slowest cursor has passed.
        self.cuts.retain(|cut| cut.number >= passed);
        self.stream.delete(advance.delete);
        Ok(None)
    }

    /// Gives the partition up.
    pub fn let_go(&mut self, daemon: DaemonId, token: Token) {
        if self.plotter == Plotter::Holds(daemon, token) {
            self.plotter = Plotter::Awaited;
            self.release(daemon);
        }
    }

    /// Gives the partition up for good.
    pub fn finish(&mut self, daemon: DaemonId, token: Token) -> Result<(), Error> {
        if self.plotter != Plotter::Finished {
            self.plotting(daemon, token)?;
            self.plotter = Plotter::Finished;
            self.release(daemon);
        }
        Ok(())
    }

    pub(super) fn newest_cut(&self) -> Option<Cut> {
        self.cuts.last().copied()
    }

    fn plotting(&self, daemon: DaemonId, token: Token) -> Result<(), Error> {
        if self.plotter == Plotter::Holds(daemon, token) {
            Ok(())
        } else {
            Err(Error::Fenced)
        }
    }
}

impl Stream {
    fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    fn push(&mut self, daemon: DaemonId, batch: u64, entry: NewEntry, now: Reference) {
        let ms = (now.0 / 1_000_000).max(0) as u64;
        self.last = if ms > self.last.0 {
            EntryId(ms, 0)
        } else {
            EntryId(self.last.0, self.last.1 + 1)
        };
        self.bytes += entry.bytes();
        self.entries.insert(
            self.last,
            Entry {
                id: self.last,
                daemon,
                batch,
                entry,
            },
        );
    }

    fn delete(&mut self, ids: &[EntryId]) {
        for id in ids {
            if let Some(gone) = self.entries.remove(id) {
                self.bytes -= gone.entry.bytes();
            }
        }
    }

    pub(super) fn after(&self, after: EntryId) -> impl Iterator<Item = &Entry> {
        self.entries
            .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
            .map(|(_, entry)| entry)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }
}

impl NewEntry {
    fn bytes(&self) -> u64 {
        let parts: usize = self.parts.iter().map(|part| part.key.len() + part.body.len()).sum();
        (self.head.len() + parts) as u64
    }
}

impl FlushAnswer {
    fn fence(&mut self, topic: &Topic) {
        if !self.fenced.contains(topic) {
            self.fenced.push(topic.clone());
        }
    }
}

impl SendFlush {
    /// Every row in it is a last word, or it has none: entries that were held back when the lease was lost.
    pub(crate) fn is_last_word(&self) -> bool {
        self.rows.iter().all(|(_, row)| row.ended)
    }
}
