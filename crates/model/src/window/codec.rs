//! The fields of the cumulative hash.

use std::collections::BTreeMap;

use crate::{
    entry::{get_byte, get_fixed, get_list},
    histogram::{Dense, Histogram},
    id::{DaemonId, Domain, Epoch},
    time::Second,
    varint::{get_i64, get_u64, put_i64, put_u64},
    verdict::{ClockDoubt, GivenUp, Lateness, SecondFacts},
    window::{RunTotals, TopicTotals, firsts::Firsts, seconds::GROUP},
};

const VERSION: u8 = 1;

pub fn topic(totals: &TopicTotals, firsts: &Firsts) -> Vec<u8> {
    let mut out = vec![VERSION];
    totals.counts().into_iter().for_each(|count| put_u64(&mut out, count));
    out.push(u8::from(totals.seconds.is_some()));
    if let Some((first, last)) = totals.seconds {
        put_i64(&mut out, first.0);
        put_i64(&mut out, last.0.wrapping_sub(first.0));
    }
    totals
        .histograms()
        .into_iter()
        .for_each(|histogram| histogram.encode(&mut out));
    put_u64(&mut out, firsts.0.len() as u64);
    for (epoch, seconds) in &firsts.0 {
        out.extend_from_slice(&epoch.0.to_le_bytes());
        put_u64(&mut out, seconds.len() as u64);
        let mut after = (0_i64, 0_u64);
        for (second, &first) in seconds {
            put_i64(&mut out, second.0.wrapping_sub(after.0));
            put_i64(&mut out, first.wrapping_sub(after.1) as i64);
            after = (second.0, first);
        }
    }
    out
}

/// The counts of a topic, without what follows them.
pub fn load_counts(bytes: &[u8]) -> Option<TopicTotals> {
    counts(&mut versioned(bytes)?)
}

fn counts(input: &mut &[u8]) -> Option<TopicTotals> {
    let mut totals = TopicTotals::default();
    for count in totals.counts_mut() {
        *count = get_u64(input)?;
    }
    Some(totals)
}

pub fn load_topic(bytes: &[u8]) -> Option<(TopicTotals, Firsts)> {
    let mut input = versioned(bytes)?;
    let input = &mut input;
    let mut totals = counts(input)?;
    if get_byte(input)? != 0 {
        let first = get_i64(input)?;
        totals.seconds = Some((Second(first), Second(first.wrapping_add(get_i64(input)?))));
    }
    for histogram in totals.histograms_mut() {
        *histogram = Histogram::decode(input)?;
    }
    let firsts = get_list(input, |input| {
        let epoch = Epoch(u64::from_le_bytes(get_fixed(input)?));
        let mut after = (0_i64, 0_u64);
        let seconds = get_list(input, |input| {
            let second = after.0.wrapping_add(get_i64(input)?);
            after = (second, after.1.wrapping_add(get_i64(input)? as u64));
            Some((Second(second), after.1))
        })?;
        Some((epoch, seconds.into_iter().collect()))
    })?;
    input.is_empty().then(|| (totals, Firsts(firsts.into_iter().collect())))
}

pub fn run(run: &RunTotals) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_u64(&mut out, run.receiving_bound_ns);
    put_u64(&mut out, run.sending_bound_ns);
    put_u64(&mut out, run.unknown_epochs);
    put_u64(&mut out, run.domains.len() as u64);
    for domain in &run.domains {
        out.extend_from_slice(&domain.0.to_le_bytes());
    }
    run.histograms()
        .into_iter()
        .for_each(|histogram| histogram.encode(&mut out));
    out
}

pub fn load_run(bytes: &[u8]) -> Option<RunTotals> {
    let mut input = versioned(bytes)?;
    let input = &mut input;
    let mut run = RunTotals {
        receiving_bound_ns: get_u64(input)?,
        sending_bound_ns: get_u64(input)?,
        unknown_epochs: get_u64(input)?,
        ..RunTotals::default()
    };
    let domains = get_list(input, |input| {
        get_fixed(input).map(|bytes| Domain(u32::from_le_bytes(bytes)))
    })?;
    run.domains = domains.into_iter().collect();
    for histogram in run.histograms_mut() {
        *histogram = Dense::decode(input)?;
    }
    input.is_empty().then_some(run)
}

/// Flags of a second.
const ERA_CHANGED: u8 = 1;
const ACK_LIMITED: u8 = 1 << 1;
const CLOCK: u8 = 1 << 2;
const FAULTS: u8 = 1 << 3;

/// The facts of one minute: daemons once, then each second in few bytes.
pub fn minute<'a>(start: Second, facts: impl Iterator<Item = (&'a Second, &'a SecondFacts)> + Clone) -> Vec<u8> {
    let mut daemons = BTreeMap::new();
    for (_, facts) in facts.clone() {
        for daemon in tables(facts).into_iter().flat_map(BTreeMap::keys) {
            daemons.entry(*daemon).or_insert(0_u64);
        }
    }
    let mut out = vec![VERSION];
    put_u64(&mut out, daemons.len() as u64);
    for (at, (daemon, position)) in daemons.iter_mut().enumerate() {
        out.extend_from_slice(&daemon.0.to_le_bytes());
        *position = at as u64;
    }
    put_u64(&mut out, facts.clone().count() as u64);
    for (second, facts) in facts {
        put_u64(&mut out, second.0.wrapping_sub(start.0) as u64);
        put_facts(&mut out, facts, &daemons);
    }
    out
}

fn tables(facts: &SecondFacts) -> [&BTreeMap<DaemonId, Lateness>; 3] {
    [&facts.producers, &facts.consumers_by_due, &facts.consumers_by_receipt]
}

fn put_facts(out: &mut Vec<u8>, facts: &SecondFacts, daemons: &BTreeMap<DaemonId, u64>) {
    let faults = [
        facts.unsent,
        facts.dropped,
        facts.missing.lost,
        facts.missing.unrecorded,
        facts.missing.unheard,
        facts.found.lost,
        facts.found.unrecorded,
        facts.found.unheard,
        facts.warmup,
    ];
    let mut flags = 0;
    let mut flag = |holds: bool, bit: u8| flags |= if holds { bit } else { 0 };
    flag(facts.era_changed, ERA_CHANGED);
    flag(facts.ack_limited, ACK_LIMITED);
    flag(
        facts.clock != ClockDoubt::default() || facts.sending_bound_ns > 0,
        CLOCK,
    );
    flag(faults != [0; 9], FAULTS);
    out.push(flags);
    for count in [
        facts.scheduled,
        facts.sent,
        facts.received,
        facts.arrived,
        facts.measured,
    ] {
        put_u64(out, count);
    }
    if flags & CLOCK != 0 {
        put_u64(out, facts.clock.bound_ns);
        put_u64(out, facts.clock.p50_ns);
        put_u64(out, facts.sending_bound_ns);
    }
    if flags & FAULTS != 0 {
        faults.into_iter().for_each(|count| put_u64(out, count));
    }
    for table in tables(facts) {
        put_u64(out, table.len() as u64);
        for (daemon, lateness) in table {
            put_u64(out, daemons.get(daemon).copied().unwrap_or(0));
            put_u64(out, lateness.messages);
            put_u64(out, lateness.late);
            put_u64(out, lateness.extreme);
        }
    }
}

pub fn load_minute(bytes: &[u8], start: Second) -> Option<Vec<(Second, SecondFacts)>> {
    let mut input = versioned(bytes)?;
    let input = &mut input;
    let daemons = get_list(input, |input| {
        get_fixed(input).map(|bytes| DaemonId(u64::from_le_bytes(bytes)))
    })?;
    let seconds = get_list(input, |input| {
        let offset = i64::try_from(get_u64(input)?).ok().filter(|&offset| offset < GROUP)?;
        Some((Second(start.0 + offset), get_facts(input, &daemons)?))
    })?;
    input.is_empty().then_some(seconds)
}

fn get_facts(input: &mut &[u8], daemons: &[DaemonId]) -> Option<SecondFacts> {
    let flags = get_byte(input)?;
    let mut facts = SecondFacts {
        era_changed: flags & ERA_CHANGED != 0,
        ack_limited: flags & ACK_LIMITED != 0,
        scheduled: get_u64(input)?,
        sent: get_u64(input)?,
        received: get_u64(input)?,
        arrived: get_u64(input)?,
        measured: get_u64(input)?,
        ..SecondFacts::default()
    };
    if flags & CLOCK != 0 {
        facts.clock = ClockDoubt {
            bound_ns: get_u64(input)?,
            p50_ns: get_u64(input)?,
        };
        facts.sending_bound_ns = get_u64(input)?;
    }
    if flags & FAULTS != 0 {
        facts.unsent = get_u64(input)?;
        facts.dropped = get_u64(input)?;
        facts.missing = get_given_up(input)?;
        facts.found = get_given_up(input)?;
        facts.warmup = get_u64(input)?;
    }
    for table in [
        &mut facts.producers,
        &mut facts.consumers_by_due,
        &mut facts.consumers_by_receipt,
    ] {
        let list = get_list(input, |input| {
            let daemon = *daemons.get(usize::try_from(get_u64(input)?).ok()?)?;
            let lateness = Lateness {
                messages: get_u64(input)?,
                late: get_u64(input)?,
                extreme: get_u64(input)?,
            };
            Some((daemon, lateness))
        })?;
        *table = list.into_iter().collect();
    }
    Some(facts)
}

fn get_given_up(input: &mut &[u8]) -> Option<GivenUp> {
    Some(GivenUp {
        lost: get_u64(input)?,
        unrecorded: get_u64(input)?,
        unheard: get_u64(input)?,
    })
}

fn versioned(bytes: &[u8]) -> Option<&[u8]> {
    let (&version, rest) = bytes.split_first()?;
    (version == VERSION).then_some(rest)
}
