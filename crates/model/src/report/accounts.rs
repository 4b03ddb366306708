//! The ledger of a run, and its sums.

use std::collections::{BTreeMap, HashMap};

use crate::{
    entry::{Missing, MissingKind},
    id::{Epoch, Topic},
    ledger::{EpochRow, Inequality, Ledger, SinkRow, TopicRow},
    range::SeqRange,
    report::{DeviceReport, LedgerReport, LostRange, RunFacts, TopicFacts},
    row::{Device, EpochReceipt, SendRow},
};

/// Ranges listed in one report; beyond that they are only counted.
const MAX_RANGES: usize = 10_000;
/// A row is at most this old when its producer dies: what it may have sent since, at its rate.
const ROW_AGE_SECONDS: f64 = 1.0;

/// All facts of a run, joined by epoch.
pub struct Accounts<'a> {
    pub devices: Vec<Account<'a>>,
    pub topics: Vec<&'a TopicFacts>,
    sinks: &'a BTreeMap<String, BTreeMap<Topic, SinkRow>>,
    closed: bool,
}

/// One device with both sides' rows.
pub struct Account<'a> {
    pub device: &'a Device,
    /// Rebuilt where the producer vanished.
    pub row: SendRow,
    pub receipt: EpochReceipt,
    rebuilt: bool,
    sent_at_most: u64,
}

impl<'a> Accounts<'a> {
    pub fn of(facts: &'a RunFacts) -> Accounts<'a> {
        let mut receipts: HashMap<Epoch, &EpochReceipt> = HashMap::new();
        for row in facts.topics.iter().filter_map(|topic| topic.row.as_ref()) {
            receipts.extend(row.epochs.iter().map(|(epoch, receipt)| (*epoch, receipt)));
        }
        let account = |(device, row): &'a (Device, SendRow)| {
            let receipt = receipts.get(&device.epoch).copied().cloned().unwrap_or_default();
            Account::of(device, row, receipt)
        };
        Accounts {
            devices: facts.devices.iter().map(account).collect(),
            topics: facts.topics.iter().collect(),
            sinks: &facts.sinks,
            closed: facts.is_closed(),
        }
    }

    /// Every account of each response topic by itself, in the topics' order.
    pub fn by_topic(self) -> Vec<(Topic, Accounts<'a>)> {
        let Accounts {
            devices,
            topics,
            sinks,
            closed,
        } = self;
        let mut split: BTreeMap<Topic, Accounts<'a>> = BTreeMap::new();
        let empty = || Accounts {
            devices: Vec::new(),
            topics: Vec::new(),
            sinks,
            closed,
        };
        for facts in topics {
            split
                .entry(facts.topic.clone())
                .or_insert_with(empty)
                .topics
                .push(facts);
        }
        for account in devices {
            let topic = account.device.response_topic.clone();
            split.entry(topic).or_insert_with(empty).devices.push(account);
        }
        split.into_iter().collect()
    }

    /// A row for each device.
    pub fn device_rows(&self) -> Vec<DeviceReport> {
        let row = |account: &Account<'_>| DeviceReport {
            device: account.device.device.clone(),
            topic: account.device.topic.clone(),
            epoch: account.device.epoch,
            row: account.epoch_row(self.closed),
        };
        self.devices.iter().map(row).collect()
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for account in &self.devices {
            let key = (account.device.topic.clone(), account.device.epoch);
            ledger.epochs.insert(key, account.epoch_row(self.closed));
        }
        let mut sent: HashMap<&Topic, (u64, bool)> = HashMap::new();
        for account in &self.devices {
            let (messages, rebuilt) = sent.entry(&account.device.response_topic).or_default();
            *messages += account.row.sent;
            *rebuilt |= account.rebuilt;
        }
        for facts in &self.topics {
            let sent = sent.get(&facts.topic).copied().unwrap_or_default();
            ledger.topics.insert(facts.topic.clone(), self.topic_row(facts, sent));
        }
        ledger
    }

    /// `sent`: by all devices of the topic, and whether some of that is made up.
    fn topic_row(&self, facts: &TopicFacts, (sent, rebuilt): (u64, bool)) -> TopicRow {
        let row = facts.row.clone().unwrap_or_default();
        // In the course of a run a consumer may hold what the store does not have yet; at its end it may not.
        let buffered = row.unique.saturating_sub(facts.stored).saturating_sub(facts.dropped);
        let sinks = self
            .sinks
            .iter()
            .map(|(sink, topics)| (sink.clone(), topics.get(&facts.topic).copied().unwrap_or_default()));
        TopicRow {
            sent,
            written: facts.written,
            unwritten: if rebuilt {
                sent.saturating_sub(facts.written.sent())
            } else {
                0
            },
            arrived: row.arrived,
            unique: row.unique,
            duplicate: row.duplicate,
            retained: row.retained,
            unstamped: row.unstamped,
            foreign: row.foreign,
            reordered: row.reordered,
            stored: facts.stored,
            dropped: facts.dropped,
            buffered: if self.closed { 0 } else { buffered },
            sinks: sinks.collect(),
        }
    }

    /// The sums, with every equation checked.
    pub fn report(&self, facts: &RunFacts) -> LedgerReport {
        let ledger = self.ledger();
        let mut sums = LedgerReport::default();
        for sink in self.sinks.keys() {
            for by_sink in sums.by_sink() {
                by_sink.insert(sink.clone(), 0);
            }
        }
        ledger.epochs.values().for_each(|row| sums.add_epoch(row));
        ledger.topics.values().for_each(|row| sums.add_topic(row));
        self.devices.iter().for_each(|account| sums.add_account(account));
        let unequal: Vec<Inequality> = if self.closed { ledger.check() } else { Vec::new() };
        sums.balanced = if facts.unreadable.is_empty() {
            self.closed.then_some(unequal.is_empty() && !facts.restored)
        } else {
            Some(false)
        };
        sums.unequal = unequal;
        sums
    }
}

impl<'a> Account<'a> {
    fn of(device: &'a Device, row: &SendRow, receipt: EpochReceipt) -> Account<'a> {
        let rebuilt = row.vanished && !row.ended;
        if !rebuilt {
            return Account {
                device,
                row: row.clone(),
                receipt,
                rebuilt,
                sent_at_most: row.sent,
            };
        }
        let full = row.rebuilt(receipt.next, device.qos);
        let queued = full.sent.max(row.sent.saturating_add(row.queued));
        let since = device.rate.map_or(0.0, |rate| (rate * ROW_AGE_SECONDS).ceil());
        let sent_at_most = queued.saturating_add(since as u64);
        Account {
            device,
            row: full,
            receipt,
            rebuilt,
            sent_at_most,
        }
    }

    fn epoch_row(&self, closed: bool) -> EpochRow {
        let (row, receipt) = (&self.row, &self.receipt);
        let known = receipt.unique + receipt.lost + receipt.unrecorded + receipt.unheard;
        EpochRow {
            scheduled: row.scheduled,
            sent: row.sent,
            unsent: row.unsent,
            queued: row.queued,
            acked: row.acked,
            refused: row.refused,
            unconfirmed: row.unconfirmed,
            unique: receipt.unique,
            lost: receipt.lost,
            unrecorded: receipt.unrecorded,
            unheard: receipt.unheard,
            in_flight: if closed { 0 } else { row.sent.saturating_sub(known) },
            answered: self.device.qos > 0,
            rebuilt: self.rebuilt,
        }
    }

    /// Whether every sequence that was not acknowledged is in a range: not so for who never said its last word, nor beyond
    /// the ranges that a row holds.
    fn answers_are_listed(&self) -> bool {
        let listed = |ranges: &[SeqRange], count: u64| ranges.iter().map(|range| range.count()).sum::<u64>() == count;
        self.device.qos > 0
            && listed(&self.row.refused_ranges, self.row.refused)
            && listed(&self.row.unconfirmed_ranges, self.row.unconfirmed)
    }

    fn lost_range(&self, missing: &Missing) -> LostRange {
        let within = |ranges: &[SeqRange]| ranges.iter().map(|range| range.overlap(missing.range)).sum::<u64>();
        let (refused, unconfirmed) = (within(&self.row.refused_ranges), within(&self.row.unconfirmed_ranges));
        let others = refused.saturating_add(unconfirmed);
        let acked = missing.range.count().saturating_sub(others);
        LostRange {
            topic: self.device.topic.clone(),
            device: self.device.device.clone(),
            epoch: self.device.epoch,
            kind: missing.kind,
            first: missing.range.first,
            last: missing.range.last,
            acked: self.answers_are_listed().then_some(acked),
            refused,
            unconfirmed,
        }
    }
}

impl LedgerReport {
    fn by_sink(&mut self) -> [&mut BTreeMap<String, u64>; 5] {
        [
            &mut self.exported,
            &mut self.pending,
            &mut self.thinned,
            &mut self.set_aside,
            &mut self.sink_dropped,
        ]
    }

    fn add_epoch(&mut self, row: &EpochRow) {
        self.scheduled += row.scheduled;
        self.sent += row.sent;
        self.sent_to_be_answered += if row.answered { row.sent } else { 0 };
        self.unsent += row.unsent;
        self.queued += row.queued;
        self.acked += row.acked;
        self.refused += row.refused;
        self.unconfirmed += row.unconfirmed;
        self.lost += row.lost;
        self.unrecorded += row.unrecorded;
        self.unheard += row.unheard;
        self.in_flight += row.in_flight;
        self.silent += u64::from(row.unique == 0);
    }

    fn add_topic(&mut self, row: &TopicRow) {
        self.plotted += row.written.plotted;
        self.unplotted += row.written.unplotted;
        self.shed += row.written.shed;
        self.unwritten += row.unwritten;
        self.plotted_samples += row.written.plotted_samples;
        self.unplotted_samples += row.written.unplotted_samples;
        self.arrived += row.arrived;
        self.unique += row.unique;
        self.duplicate += row.duplicate;
        self.retained += row.retained;
        self.unstamped += row.unstamped;
        self.foreign += row.foreign;
        self.reordered += row.reordered;
        self.stored += row.stored;
        self.dropped += row.dropped;
        self.buffered += row.buffered;
        for (sink, row) in &row.sinks {
            let counts = [row.exported, row.pending, row.thinned, row.set_aside, row.sink_dropped];
            for (by_sink, count) in self.by_sink().into_iter().zip(counts) {
                *by_sink.entry(sink.clone()).or_default() += count;
            }
        }
    }

    fn add_account(&mut self, account: &Account<'_>) {
        self.vanished += u64::from(account.rebuilt);
        self.sent_at_most += account.sent_at_most;
        self.retransmitted += account.row.retransmitted;
        self.unrouted += account.row.unrouted;
        let ranges = &account.receipt.ranges;
        let lost = ranges
            .iter()
            .filter(|missing| missing.kind == MissingKind::Lost)
            .count() as u64;
        self.gaps += lost + account.receipt.forgotten_ranges;
        let room = MAX_RANGES.saturating_sub(self.lost_ranges.len());
        self.lost_ranges
            .extend(ranges.iter().take(room).map(|missing| account.lost_range(missing)));
    }
}
