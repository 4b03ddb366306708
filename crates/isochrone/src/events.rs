//! What happened in a run: from what its daemons noted, their rows and the facts of its seconds to a list by time.

use std::collections::BTreeMap;

use isochrone_model::{
    id::DaemonId,
    report::{Event, RunFacts},
    row::{Connects, Trouble},
    time::{NANOS_PER_SECOND, Reference, Second},
};
use isochrone_store::types::{Member, Note, NoteKind, RunRecord};

use crate::facts::utc;

/// What several daemons saw within this time is one event, in nanoseconds.
const TOGETHER_NS: i64 = 5 * NANOS_PER_SECOND;
/// Daemons named in one event.
const NAMED: usize = 8;

/// Everything that is told, by time; what has no time goes last.
pub fn events(run: &RunRecord, roster: &[Member], notes: &[Note], omitted: u64, facts: &RunFacts) -> Vec<Event> {
    let names: Names = roster.iter().map(|member| (member.daemon, name(member))).collect();
    let mut told = vec![(Some(run.opened_at), event(None, "opened"))];
    told.extend(run.closed_at.map(|at| (Some(at), event(None, "closed"))));
    told.extend(vanished(roster, notes));
    told.extend(noted(notes, &names));
    told.extend(troubles(facts, &names));
    told.extend(refusals(facts));
    told.extend(takeovers(facts, &names));
    told.extend(dropped(facts));
    if run.restored {
        let what = "the store lost more than its last two seconds; figures are incomplete";
        told.push((None, event(None, what)));
    }
    if omitted > 0 {
        told.push((
            None,
            event(None, &format!("{omitted} more notes of daemons were only counted")),
        ));
    }
    told.sort_by_key(|(at, event)| (at.is_none(), *at, event.what == "closed"));
    let dated = told.into_iter().map(|(at, event)| Event {
        at: at.map(utc),
        ..event
    });
    dated.collect()
}

type Names = BTreeMap<DaemonId, String>;
type Told = (Option<Reference>, Event);

fn event(daemon: Option<String>, what: &str) -> Event {
    Event {
        at: None,
        daemon,
        what: what.to_owned(),
    }
}

fn name(member: &Member) -> String {
    format!("{} {} ({})", member.role.as_str(), member.ordinal, member.daemon)
}

fn named(daemon: DaemonId, names: &Names) -> String {
    names.get(&daemon).cloned().unwrap_or_else(|| daemon.to_string())
}

/// Daemons without a last word, when they were last heard of: their counter is never below the time of its renewal.
fn vanished(roster: &[Member], notes: &[Note]) -> Vec<Told> {
    let gone = roster.iter().filter(|member| member.vanished && !member.ended);
    gone.map(|member| {
        let heard = Reference(i64::try_from(member.counter).unwrap_or(i64::MAX).saturating_mul(1_000));
        let found = notes
            .iter()
            .find(|note| note.what == NoteKind::Dead && note.daemon == member.daemon);
        let found = found.map_or_else(String::new, |note| format!("; found dead {}", utc(note.at)));
        let what = format!("vanished without a last word, last heard of at this time{found}");
        (Some(heard), event(Some(name(member)), &what))
    })
    .collect()
}

/// What daemons noted of themselves, those of a kind together.
fn noted(notes: &[Note], names: &Names) -> Vec<Told> {
    let mut told = Vec::new();
    for what in [
        NoteKind::Away,
        NoteKind::StoreAway,
        NoteKind::NewServer,
        NoteKind::NewEra,
    ] {
        let mut alike: Vec<&Note> = notes.iter().filter(|note| note.what == what).collect();
        alike.sort_by_key(|note| (note.at, note.daemon));
        if what == NoteKind::Away {
            let away = |note: &&Note| (Some(note.at), event(Some(named(note.daemon, names)), &describe(note)));
            told.extend(alike.iter().map(away));
            continue;
        }
        for group in alike.chunk_by(|a, b| b.at.since_ns(a.at) < TOGETHER_NS) {
            let Some(longest) = group.iter().max_by_key(|note| note.lasted_ns) else {
                continue;
            };
            let mut daemons: Vec<DaemonId> = group.iter().map(|note| note.daemon).collect();
            daemons.sort_unstable();
            daemons.dedup();
            told.push((
                group.first().map(|note| note.at),
                event(Some(several(&daemons, names)), &describe(longest)),
            ));
        }
    }
    told
}

fn describe(note: &Note) -> String {
    let lasted = seconds(note.lasted_ns);
    match note.what {
        NoteKind::Away => format!("was away from its work for {lasted}"),
        NoteKind::StoreAway => format!("Redis did not answer for {lasted}"),
        NoteKind::NewServer => "another life of the Redis server answers: restarted, or failed over".to_owned(),
        NoteKind::NewEra => "the reference clock jumped or moved: a new era began".to_owned(),
        NoteKind::Dead => "was found dead".to_owned(),
    }
}

/// Failed connections: those of producers that began together, those of all consumers together.
fn troubles(facts: &RunFacts, names: &Names) -> Vec<Told> {
    let mut by_daemon: BTreeMap<Option<DaemonId>, Vec<&Connects>> = BTreeMap::new();
    for (device, row) in &facts.devices {
        by_daemon.entry(Some(device.producer)).or_default().push(&row.connects);
    }
    let consumers = facts.topics.iter().filter_map(|topic| topic.row.as_ref());
    by_daemon.insert(None, consumers.map(|row| &row.connects).collect());
    let mut found: Vec<(Trouble, Option<DaemonId>)> = Vec::new();
    for (daemon, connects) in by_daemon {
        let mut all: Vec<Trouble> = connects
            .iter()
            .flat_map(|connects| connects.troubles.iter().copied())
            .collect();
        all.sort_by_key(|trouble| trouble.first);
        let mut merged: Vec<Trouble> = Vec::new();
        for trouble in all {
            match merged.last_mut() {
                Some(last) if trouble.first.since_ns(last.last) < Trouble::APART_NS => {
                    last.last = last.last.max(trouble.last);
                    last.count += trouble.count;
                }
                _ => merged.push(trouble),
            }
        }
        found.extend(merged.into_iter().map(|trouble| (trouble, daemon)));
    }
    // A restart of the broker is one event, however many producers it happened to.
    found.sort_by_key(|(trouble, daemon)| (daemon.is_none(), trouble.first, *daemon));
    let groups = found
        .chunk_by(|(a, of_a), (b, of_b)| of_a.is_some() && of_b.is_some() && b.first.since_ns(a.first) < TOGETHER_NS);
    let told = groups.filter_map(|group| {
        let (first, daemon) = *group.first()?;
        let mut daemons: Vec<DaemonId> = group.iter().filter_map(|(_, daemon)| *daemon).collect();
        daemons.sort_unstable();
        daemons.dedup();
        let who = daemon.map_or_else(|| "consumers".to_owned(), |_| several(&daemons, names));
        let last = group.iter().map(|(trouble, _)| trouble.last).max()?;
        let span = seconds(last.since_ns(first.first).max(0) as u64);
        let count: u64 = group.iter().map(|(trouble, _)| trouble.count).sum();
        let what = format!("connections to the broker failed or ended: {count} within {span}");
        Some((Some(first.first), event(Some(who), &what)))
    });
    told.collect()
}

/// Subscriptions that the broker refused.
fn refusals(facts: &RunFacts) -> Option<Told> {
    let rows = facts.topics.iter().filter_map(|topic| topic.row.as_ref());
    let refused: u64 = rows
        .filter_map(|row| row.connects.failed.get(Connects::REFUSED_SUBSCRIPTION))
        .sum();
    let what = format!("the broker refused {refused} subscriptions");
    (refused > 0).then(|| (None, event(Some("consumers".to_owned()), &what)))
}

fn takeovers(facts: &RunFacts, names: &Names) -> Vec<Told> {
    let rows = facts.topics.iter().filter_map(|topic| topic.row.as_ref());
    let mut all: Vec<_> = rows.flat_map(|row| row.takeovers.iter().copied()).collect();
    all.sort_by_key(|takeover| (takeover.by, takeover.at));
    let groups = all.chunk_by(|a, b| a.by == b.by && b.at.since_ns(a.at) < TOGETHER_NS);
    let told = groups.filter_map(|group| {
        let first = group.first()?;
        let what = format!("took over {} response topics of a dead consumer", group.len());
        Some((Some(first.at), event(Some(named(first.by, names)), &what)))
    });
    told.collect()
}

/// Dropped samples, by the seconds in which they were due.
fn dropped(facts: &RunFacts) -> Vec<Told> {
    let seconds = facts.totals.seconds().iter();
    let dropped: Vec<(Second, u64)> = seconds
        .filter(|(_, facts)| facts.dropped > 0)
        .map(|(second, facts)| (*second, facts.dropped))
        .collect();
    let groups = dropped.chunk_by(|a, b| b.0.0 - a.0.0 <= 1);
    let told = groups.filter_map(|group| {
        let (first, count) = (group.first()?.0, group.iter().map(|(_, count)| count).sum::<u64>());
        let what = format!(
            "consumers dropped {count} samples due within {} s from here on",
            group.len()
        );
        Some((Some(first.start()), event(None, &what)))
    });
    told.collect()
}

fn several(daemons: &[DaemonId], names: &Names) -> String {
    let some: Vec<String> = daemons.iter().take(NAMED).map(|daemon| named(*daemon, names)).collect();
    match daemons.len().saturating_sub(NAMED) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / NANOS_PER_SECOND as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use isochrone_model::row::{Device, ReceiptRow, SendRow, Takeover};
    use isochrone_store::types::{Pins, Role, RunState};

    use super::*;
    use crate::testing::device;

    fn at(ms: i64) -> Reference {
        Reference(1_795_312_800_000_000_000 + ms * 1_000_000)
    }

    fn member(daemon: u64, role: Role, vanished: bool) -> Member {
        Member {
            daemon: DaemonId(daemon),
            role,
            ordinal: 0,
            counter: at(20_000).0 as u64 / 1_000,
            joined: 0,
            ended: !vanished,
            vanished,
        }
    }

    /// Each event has its time and its daemon, the same outage seen by several is one, and they are in order.
    #[test]
    fn events_are_told_in_order() {
        let run = RunRecord {
            run: "r".parse().unwrap(),
            pins: Pins {
                schema: 1,
                partitions: 1,
                claim_unit: "topic".to_owned(),
            },
            state: RunState::Closed,
            opened_at: at(0),
            closed_at: Some(at(60_000)),
            keep: Duration::from_secs(1),
            restored: false,
        };
        let roster = [member(1, Role::Producer, false), member(2, Role::Consumer, true)];
        let note = |daemon, what, ms, lasted_ns| Note {
            daemon: DaemonId(daemon),
            what,
            at: at(ms),
            lasted_ns,
        };
        let notes = [
            note(2, NoteKind::Dead, 27_000, 0),
            note(2, NoteKind::StoreAway, 5_300, 9_000_000_000),
            note(1, NoteKind::StoreAway, 5_000, 10_000_000_000),
            note(1, NoteKind::Away, 2_000, 1_500_000_000),
        ];
        let mut facts = RunFacts::new(run.run.clone(), "closed");
        let mut row = ReceiptRow::default();
        row.connects.fail("closed by peer", at(40_000));
        row.connects.fail("tcp refused", at(41_000));
        row.connects.refuse();
        row.takeovers = vec![Takeover {
            by: DaemonId(1),
            at: at(28_000),
        }];
        facts.topics.push(isochrone_model::report::TopicFacts {
            topic: "t".into(),
            row: Some(row),
            stored: 0,
            dropped: 0,
            written: isochrone_model::ledger::Written::default(),
        });
        // One restart of the broker, as two producers saw it.
        for (producer, ms) in [(1, 40_100), (3, 40_900)] {
            let mut send = SendRow::default();
            send.connects.fail("closed by peer", at(ms));
            let device = Device {
                producer: DaemonId(producer),
                ..device(producer)
            };
            facts.devices.push((device, send));
        }
        let told = events(&run, &roster, &notes, 3, &facts);
        let lines: Vec<String> = told
            .iter()
            .map(|event| {
                let at = event.at.as_deref().map_or("–", |at| &at[17..]);
                format!("{at} {} {}", event.daemon.as_deref().unwrap_or("run"), event.what)
            })
            .collect();
        let (producer, consumer) = ("producer 0 (0000000000000001)", "consumer 0 (0000000000000002)");
        let found = utc(at(27_000));
        assert_eq!(
            lines,
            [
                "00.000Z run opened".to_owned(),
                format!("02.000Z {producer} was away from its work for 1.5 s"),
                format!("05.000Z {producer}, {consumer} Redis did not answer for 10.0 s"),
                format!(
                    "20.000Z {consumer} vanished without a last word, last heard of at this time; found dead {found}"
                ),
                format!("28.000Z {producer} took over 1 response topics of a dead consumer"),
                "40.000Z consumers connections to the broker failed or ended: 2 within 1.0 s".to_owned(),
                format!(
                    "40.100Z {producer}, 0000000000000003 connections to the broker failed or ended: 2 within 0.8 s"
                ),
                "00.000Z run closed".to_owned(),
                "– consumers the broker refused 1 subscriptions".to_owned(),
                "– run 3 more notes of daemons were only counted".to_owned(),
            ]
        );
    }
}
