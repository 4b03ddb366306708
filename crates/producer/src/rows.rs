//! What one device counts: its row of the ledger, and what changed of each due-second since the last report.
//!
//! Every name is counted where it happens; `scheduled = sent + unsent + queued` holds after every call.

use std::collections::VecDeque;

use isochrone_model::{
    entry::SendPart,
    id::Epoch,
    range::{SeqRange, append},
    row::{Connects, PhaseTime, SendRow},
    time::{Reference, Second},
    verdict::EXTREME_NS,
};
use isochrone_transport::{Connected, Disconnected};

/// Due-seconds remembered for placing unanswered sequences before the oldest are looked at.
const REMEMBERED: usize = 64;

/// The account of one device.
pub struct Account {
    row: SendRow,
    open: Vec<DueSecond>,
    /// First sequence of each due-second with messages that may still be unanswered (QoS > 0).
    firsts: VecDeque<(Second, u64)>,
    last_second: Option<Second>,
    /// Due time of the last message of warm-up or the ramp.
    warm_until: Option<Reference>,
    valid_late_ns: i64,
    epoch: Epoch,
    acknowledged: bool,
    /// QoS 2: PUBREC came, PUBCOMP did not yet.
    releasing: u64,
    qos: u8,
    changed: bool,
}

/// What one device adds to one due-second; of a second that begins in warm-up and ends after it there are two.
#[derive(Clone, Debug, PartialEq)]
pub struct DueSecond {
    /// The second.
    pub second: Second,
    /// The additions.
    pub part: SendPart,
    /// Messages sent late by more than ISOCHRONE_VALID_LATE.
    pub late: u64,
    /// Messages sent late by more than 100 ms.
    pub extreme: u64,
}

impl Account {
    /// An account in which nothing has happened.
    pub fn new(epoch: Epoch, qos: u8, valid_late_ns: i64) -> Account {
        Account {
            row: SendRow::default(),
            open: Vec::new(),
            firsts: VecDeque::new(),
            last_second: None,
            warm_until: None,
            valid_late_ns,
            epoch,
            acknowledged: qos > 0,
            releasing: 0,
            qos,
            changed: false,
        }
    }

    /// The row as of now.
    pub fn row(&self) -> &SendRow {
        &self.row
    }

    /// Whether every message sent has its last answer (always so for QoS 0).
    pub fn answered(&self) -> bool {
        !self.acknowledged || (self.row.unconfirmed == 0 && self.releasing == 0)
    }

    /// A place in the schedule came due and was queued.
    pub fn scheduled(&mut self, due: Reference, warmup: bool) {
        if warmup {
            self.warm_until = Some(due);
        }
        self.row.scheduled += 1;
        self.row.queued += 1;
        self.at(due).part.scheduled += 1;
    }

    /// A queued place was given up before it was offered.
    pub fn unsent(&mut self, due: Reference) {
        self.row.queued -= 1;
        self.row.unsent += 1;
        self.at(due).part.unsent += 1;
    }

    /// A queued place was offered to the socket, `late_ns` after it was due through our own doing.
    pub fn sent(&mut self, sequence: u64, due: Reference, sent: Reference, late_ns: i64) {
        self.row.queued -= 1;
        self.row.sent += 1;
        self.row.unconfirmed += u64::from(self.acknowledged);
        self.row.due = Some((self.row.due.map_or(due, |(first, _)| first), due));
        self.row.sent_at = Some((self.row.sent_at.map_or(sent, |(first, _)| first), sent));
        let second = due.second();
        let first = self.last_second != Some(second);
        if first {
            self.last_second = Some(second);
            if self.acknowledged {
                self.firsts.push_back((second, sequence));
            }
        }
        let valid_late_ns = self.valid_late_ns;
        let open = self.at(due);
        open.part.sent += 1;
        if first {
            open.part.first_sequence = Some(sequence);
        }
        open.part.late.record(late_ns);
        open.late += u64::from(late_ns > valid_late_ns);
        open.extreme += u64::from(late_ns > EXTREME_NS);
    }

    /// PUBACK, or PUBREC with success, `ack_ns` after offering.
    pub fn acked(&mut self, due: Reference, ack_ns: i64, unrouted: bool) {
        self.row.acked += 1;
        self.row.unconfirmed = self.row.unconfirmed.saturating_sub(1);
        self.row.unrouted += u64::from(unrouted);
        self.releasing += u64::from(self.qos == 2);
        let open = self.at(due);
        open.part.acked += 1;
        open.part.ack.record(ack_ns);
    }

    /// PUBCOMP, `complete_ns` after PUBREL.
    pub fn completed(&mut self, due: Reference, complete_ns: i64) {
        self.releasing = self.releasing.saturating_sub(1);
        self.at(due).part.complete.record(complete_ns);
    }

    /// The broker's session is gone, and with it every PUBREL that awaited an answer.
    pub fn session_lost(&mut self) {
        self.releasing = 0;
    }

    /// The broker refused a message.
    pub fn refused(&mut self, sequence: u64, due: Reference) {
        self.row.refused += 1;
        self.row.unconfirmed = self.row.unconfirmed.saturating_sub(1);
        push(&mut self.row.refused_ranges, sequence, SendRow::MAX_RANGES);
        let one = SeqRange {
            first: sequence,
            last: sequence,
        };
        append(&mut self.at(due).part.refused, [one], SendPart::MAX_RANGES);
    }

    /// A PUBLISH frame was sent again.
    pub fn retransmitted(&mut self) {
        self.changed = true;
        self.row.retransmitted += 1;
    }

    /// A connection came up.
    pub fn connected(&mut self, connected: &Connected) {
        self.changed = true;
        let connects = &mut self.row.connects;
        connects.attempts += 1;
        phase(connects, "tcp", connected.tcp_ns);
        if let Some(tls_ns) = connected.tls_ns {
            phase(connects, "tls", tls_ns);
        }
        phase(connects, "connack", connected.connack_ns);
    }

    /// An attempt failed, or (`was_up`) a connection ended.
    pub fn disconnected(&mut self, disconnected: &Disconnected, was_up: bool, at: Reference) {
        self.changed = true;
        let connects = &mut self.row.connects;
        connects.attempts += u64::from(!was_up);
        connects.fail(disconnected.reason, at);
    }

    /// The last word: `unanswered` are the sequences sent that the broker never answered, in order.
    pub fn end(&mut self, unanswered: &[u64]) {
        self.changed = true;
        self.row.ended = true;
        self.row.unconfirmed = unanswered.len() as u64;
        for &sequence in unanswered {
            push(&mut self.row.unconfirmed_ranges, sequence, SendRow::MAX_RANGES);
            let second = self.second_of(sequence);
            let warmup = self.warm_until.is_some_and(|until| second < until.second());
            let one = SeqRange {
                first: sequence,
                last: sequence,
            };
            let part = &mut self.at_second(second, warmup).part;
            append(&mut part.unconfirmed, [one], SendPart::MAX_RANGES);
        }
    }

    /// Whether anything changed since the last [`take`](Account::take).
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Whether more due-seconds are remembered than a healthy connection needs.
    pub fn wants_oldest_unanswered(&self) -> bool {
        self.firsts.len() > REMEMBERED
    }

    /// Forgets the due-seconds whose messages are all below `sequence`.
    pub fn oldest_unanswered(&mut self, sequence: u64) {
        while self.firsts.get(1).is_some_and(|&(_, first)| first <= sequence) {
            self.firsts.pop_front();
        }
    }

    /// The whole row, and what was added to each due-second since the last call.
    pub fn take(&mut self) -> (SendRow, Vec<DueSecond>) {
        self.changed = false;
        if self.acknowledged && self.row.unconfirmed == 0 {
            self.oldest_unanswered(u64::MAX);
        }
        (self.row.clone(), std::mem::take(&mut self.open))
    }

    fn at(&mut self, due: Reference) -> &mut DueSecond {
        let warmup = self.warm_until.is_some_and(|until| due <= until);
        self.at_second(due.second(), warmup)
    }

    fn at_second(&mut self, second: Second, warmup: bool) -> &mut DueSecond {
        self.changed = true;
        // Nearly always the newest; acknowledgements reach a second or two back.
        let index = match self
            .open
            .iter()
            .rposition(|open| open.second == second && open.part.warmup == warmup)
        {
            Some(index) => index,
            None => {
                let part = SendPart {
                    epoch: self.epoch,
                    warmup,
                    ..SendPart::default()
                };
                self.open.push(DueSecond {
                    second,
                    part,
                    late: 0,
                    extreme: 0,
                });
                self.open.len() - 1
            }
        };
        &mut self.open[index]
    }

    fn second_of(&self, sequence: u64) -> Second {
        let after = self.firsts.partition_point(|&(_, first)| first <= sequence);
        let known = self.firsts.get(after.saturating_sub(1)).map(|&(second, _)| second);
        known.or(self.last_second).unwrap_or_default()
    }
}

/// Adds a sequence to ranges in ascending order; beyond `most` ranges only counts tell.
fn push(ranges: &mut Vec<SeqRange>, sequence: u64, most: usize) {
    if let Some(range) = ranges.last_mut()
        && range.last.checked_add(1) == Some(sequence)
    {
        range.last = sequence;
    } else if ranges.len() < most {
        ranges.push(SeqRange {
            first: sequence,
            last: sequence,
        });
    }
}

fn phase(connects: &mut Connects, name: &str, ns: u64) {
    // Looked up first: the name is allocated once a device.
    if let Some(time) = connects.phases.get_mut(name) {
        time.count += 1;
        time.sum_ns = time.sum_ns.saturating_add(ns);
        time.max_ns = time.max_ns.max(ns);
        return;
    }
    connects.phases.insert(
        name.to_owned(),
        PhaseTime {
            count: 1,
            sum_ns: ns,
            max_ns: ns,
        },
    );
}
