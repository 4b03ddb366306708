//! From what workers report to what the store is told: one outbox a partition, one flush of it under way at a time.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use isochrone_model::{
    entry::{SendHead, SendPart},
    id::{DaemonId, Domain, Epoch, Token},
    range::append,
    row::SendRow,
    time::{Monotonic, Second},
};
use isochrone_store::types::{EntryKind, MOST_PARTS_OF_A_FLUSH, NewEntry, NewPart, SendFlush};

use crate::rows::DueSecond;

/// Parts kept while the store is away, a device; then the oldest due-seconds are merged, so that no count is lost.
const SECONDS_OF_A_DEVICE: usize = 64;
/// Seconds whose whole-producer account waits for an entry of this partition.
const MOST_ACCOUNTS: usize = 1_024;
/// Flushes kept though the store has confirmed them: minutes' worth, when it takes writes and does not tell its life. The
/// oldest are forgotten first.
const MOST_RECENT: usize = 1_024;
/// At least so many parts are kept, however few the devices.
const LEAST_PARTS: usize = 4_096;

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// This life of the producer.
    pub daemon: DaemonId,
    /// Its clock domain.
    pub domain: Domain,
}

/// What the whole producer sent that was due in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    messages: u64,
    late: u64,
    extreme: u64,
    bound_ns: u64,
    era_changed: bool,
}

/// Everything of one partition that the store has not confirmed.
pub struct Outbox {
    author: Author,
    most_parts: usize,
    /// By device; warm-up apart from the rest.
    seconds: BTreeMap<Second, BTreeMap<(Epoch, bool), DueSecond>>,
    parts: usize,
    /// Of all partitions together: an entry tells of the whole producer, all that happened since the last entry of its second.
    accounts: BTreeMap<Second, Account>,
    rows: HashMap<Epoch, SendRow>,
    /// The lease is lost.
    is_fenced: bool,
    last_batch: u64,
    under_way: Option<Arc<SendFlush>>,
    again: VecDeque<Arc<SendFlush>>,
    /// Confirmed, but not yet old enough to be safe.
    recent: VecDeque<(Monotonic, Arc<SendFlush>)>,
}

impl Outbox {
    /// An empty outbox for a partition with so many devices.
    pub fn new(author: Author, devices: usize) -> Outbox {
        Outbox {
            author,
            most_parts: devices.saturating_mul(SECONDS_OF_A_DEVICE).max(LEAST_PARTS),
            seconds: BTreeMap::new(),
            parts: 0,
            accounts: BTreeMap::new(),
            rows: HashMap::new(),
            is_fenced: false,
            last_batch: 0,
            under_way: None,
            again: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    /// Adds what a device counted.
    pub fn add(&mut self, epoch: Epoch, row: SendRow, seconds: Vec<DueSecond>) {
        self.rows.insert(epoch, row);
        for second in seconds {
            self.add_second(second);
        }
        while self.parts > self.most_parts && self.merge_oldest() {}
    }

    /// Adds what the whole producer sent, whatever the partition.
    pub fn add_account(&mut self, second: Second, account: Account) {
        self.accounts.entry(second).or_default().add(account);
        if self.accounts.len() <= MOST_ACCOUNTS {
            return;
        }
        // Seconds in which nothing of this partition happens tell elsewhere.
        let untold = self.accounts.keys().find(|second| !self.seconds.contains_key(*second));
        if let Some(untold) = untold.copied() {
            self.accounts.remove(&untold);
        } else if let Some((_, oldest)) = self.accounts.pop_first()
            && let Some(mut next) = self.accounts.first_entry()
        {
            next.get_mut().add(oldest);
        }
    }

    /// Whether everything is confirmed and old enough to be safe.
    pub fn is_safe(&self) -> bool {
        self.is_empty() && self.recent.is_empty()
    }

    /// Whether everything is confirmed.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_none() && self.again.is_empty() && self.rows.is_empty() && self.parts == 0
    }

    /// What to write now, if there is anything to say: the same until it is [`stored`](Outbox::stored).
    pub fn next(&mut self) -> Option<Arc<SendFlush>> {
        if self.under_way.is_none() {
            self.under_way = self.again.pop_front().or_else(|| self.make());
        }
        self.under_way.clone()
    }

    /// The store has it.
    pub fn stored(&mut self, now: Monotonic) {
        if let Some(flush) = self.under_way.take() {
            if self.recent.len() == MOST_RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((now, flush));
        }
    }

    /// Forgets what the store cannot lose any more, by when it confirmed that it had it.
    pub fn forget(&mut self, is_lasting: impl Fn(Monotonic) -> bool) {
        while self.recent.pop_front_if(|(stored, _)| is_lasting(*stored)).is_some() {}
    }

    /// The store takes nothing any more. Rows that it has not got must not come after parts that it will never get.
    pub fn give_up(&mut self) {
        *self = Outbox {
            last_batch: self.last_batch,
            ..Outbox::new(self.author, 0)
        };
    }

    /// The store may have forgotten: what is recent goes again, in order, under the same numbers. Order matters: a
    /// number below the last one stored counts as a repeat.
    pub fn repeat_recent(&mut self) {
        let recent = self.recent.drain(..).map(|(_, flush)| flush);
        let mut again: VecDeque<_> = recent.chain(self.under_way.take()).collect();
        again.append(&mut self.again);
        self.again = again;
    }

    /// A row to be written again though nothing changed.
    pub fn touch(&mut self, epoch: Epoch, row: &SendRow) {
        self.rows.entry(epoch).or_insert_with(|| row.clone());
    }

    /// The lease is lost: what was not taken goes again without rows, and `last_words` come with the last of it.
    pub fn end_with(&mut self, last_words: Vec<(Epoch, SendRow)>) {
        self.is_fenced = true;
        for flush in self.under_way.iter_mut().chain(&mut self.again) {
            let (batch, entries) = (flush.batch, flush.entries.clone());
            *flush = Arc::new(SendFlush {
                batch,
                entries,
                rows: Vec::new(),
            });
        }
        for (epoch, row) in last_words {
            self.rows.insert(epoch, row);
        }
    }

    fn add_second(&mut self, due: DueSecond) {
        match self
            .seconds
            .entry(due.second)
            .or_default()
            .entry((due.part.epoch, due.part.warmup))
        {
            std::collections::btree_map::Entry::Occupied(mut known) => merge(known.get_mut(), due),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(due);
                self.parts += 1;
            }
        }
    }

    fn merge_oldest(&mut self) -> bool {
        if self.seconds.len() < 2 {
            return false;
        }
        let Some((second, oldest)) = self.seconds.pop_first() else {
            return false;
        };
        let Some((&into, _)) = self.seconds.first_key_value() else {
            return false;
        };
        self.parts -= oldest.len();
        if let Some(account) = self.accounts.remove(&second) {
            self.accounts.entry(into).or_default().add(account);
        }
        for (_, mut due) in oldest {
            due.second = into;
            self.add_second(due);
        }
        true
    }

    fn make(&mut self) -> Option<Arc<SendFlush>> {
        if self.rows.is_empty() && self.parts == 0 {
            return None;
        }
        let mut entries = Vec::new();
        let mut parts = 0;
        while parts < MOST_PARTS_OF_A_FLUSH
            && let Some((second, devices)) = self.seconds.pop_first()
        {
            parts += devices.len();
            entries.extend(self.entries(second, devices.into_values()));
        }
        self.parts -= parts;
        self.last_batch += 1;
        // Every part is written with its device's newest row, but a row is final only with the last of the parts: who dies before
        // that has vanished. After a lost lease nothing but last words is taken, and what comes without any row.
        let rows = match self.parts {
            0 => self.rows.drain().collect(),
            _ if self.is_fenced => Vec::new(),
            _ => self.rows.iter().map(|(&epoch, row)| (epoch, unfinished(row))).collect(),
        };
        Some(Arc::new(SendFlush {
            batch: self.last_batch,
            entries,
            rows,
        }))
    }

    /// The entries of a second: the first of them has the whole producer's account, which counts once.
    fn entries(&mut self, second: Second, devices: impl Iterator<Item = DueSecond>) -> Vec<NewEntry> {
        let parts: Vec<NewPart> = devices
            .map(|due| NewPart {
                key: due.part.epoch.to_string(),
                token: Token(0),
                samples: due.part.sent,
                body: Bytes::from(due.part.encode()),
            })
            .collect();
        let mut account = self.accounts.remove(&second).unwrap_or_default();
        let entries = parts.chunks(NewEntry::MOST_PARTS).map(|parts| NewEntry {
            kind: EntryKind::Send,
            second,
            head: Bytes::from(self.author.head(std::mem::take(&mut account)).encode()),
            parts: parts.to_vec(),
        });
        entries.collect()
    }
}

impl Author {
    fn head(self, account: Account) -> SendHead {
        let Account {
            messages,
            late,
            extreme,
            bound_ns,
            era_changed,
        } = account;
        SendHead {
            daemon: self.daemon,
            domain: self.domain,
            messages,
            late,
            extreme,
            bound_ns,
            era_changed,
        }
    }
}

impl Account {
    /// What one device adds; warm-up is outside the verdict.
    pub fn of(due: &DueSecond) -> Account {
        if due.part.warmup {
            return Account::default();
        }
        Account {
            messages: due.part.sent,
            late: due.late,
            extreme: due.extreme,
            ..Account::default()
        }
    }

    /// How well the reference clock was known when this was counted.
    pub fn clock(bound_ns: u64, era_changed: bool) -> Account {
        Account {
            bound_ns,
            era_changed,
            ..Account::default()
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: Account) {
        self.messages += other.messages;
        self.late += other.late;
        self.extreme += other.extreme;
        self.bound_ns = self.bound_ns.max(other.bound_ns);
        self.era_changed |= other.era_changed;
    }
}

/// As it is before its last word.
fn unfinished(row: &SendRow) -> SendRow {
    SendRow {
        ended: false,
        ..row.clone()
    }
}

/// Adds later additions to earlier ones of the same device, both of warm-up or neither.
fn merge(into: &mut DueSecond, later: DueSecond) {
    into.late += later.late;
    into.extreme += later.extreme;
    let (into, later): (&mut SendPart, SendPart) = (&mut into.part, later.part);
    into.scheduled += later.scheduled;
    into.sent += later.sent;
    into.unsent += later.unsent;
    into.first_sequence = match (into.first_sequence, later.first_sequence) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    into.acked += later.acked;
    append(&mut into.refused, later.refused, SendPart::MAX_RANGES);
    append(&mut into.unconfirmed, later.unconfirmed, SendPart::MAX_RANGES);
    into.late.merge(&later.late);
    into.ack.merge(&later.ack);
    into.complete.merge(&later.complete);
}
