use proptest::prelude::*;

use super::*;
use crate::{
    entry::{ConsumerDelay, Missing, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    id::{DaemonId, Domain},
    range::SeqRange,
    row::EpochReceipt,
    slo,
    time::{NANOS_PER_SECOND, Reference, Second},
    window::CutEntry,
};

const START: i64 = 1_800_000_000 * NANOS_PER_SECOND;

fn at(ms: i64) -> Reference {
    Reference(START + ms * 1_000_000)
}

fn device() -> Device {
    Device {
        epoch: Epoch(1),
        device: "0-0".to_owned(),
        client_id: String::new(),
        topic: "up".into(),
        response_topic: "down".into(),
        url: "memory:".to_owned(),
        qos: 1,
        mqtt_version: "5".to_owned(),
        rate: Some(100.0),
        domain: Domain(1),
        producer: DaemonId(1),
        ordinal: 0,
        number: 0,
    }
}

/// 1,000 messages at 100 a second: three were lost, one of them had been refused.
fn facts() -> RunFacts {
    let mut facts = RunFacts::new("r1".parse().unwrap(), "closed");
    let send = SendRow {
        scheduled: 1_001,
        sent: 1_000,
        unsent: 1,
        acked: 999,
        refused: 1,
        refused_ranges: vec![SeqRange { first: 11, last: 11 }],
        due: Some((at(0), at(9_990))),
        sent_at: Some((at(0), at(9_990))),
        ended: true,
        ..SendRow::default()
    };
    facts.devices.push((device(), send));
    let range = SeqRange { first: 10, last: 12 };
    let lost = Missing {
        epoch: Epoch(1),
        kind: MissingKind::Lost,
        range,
        due: (at(100), at(120)),
    };
    let epoch = EpochReceipt {
        unique: 997,
        lost: 3,
        next: 1_000,
        ranges: vec![lost],
        settled: true,
        ..EpochReceipt::default()
    };
    let row = ReceiptRow {
        arrived: 1_000,
        unique: 997,
        duplicate: 2,
        retained: 1,
        epochs: [(Epoch(1), epoch)].into(),
        closed: true,
        ..ReceiptRow::default()
    };
    facts.topics.push(TopicFacts {
        topic: "down".into(),
        row: Some(row),
        stored: 990,
        dropped: 7,
        written: Written {
            plotted: 950,
            unplotted: 30,
            shed: 20,
            plotted_samples: 980,
            unplotted_samples: 10,
        },
    });
    let sink = SinkRow {
        exported: 900,
        thinned: 90,
        ..SinkRow::default()
    };
    facts
        .sinks
        .insert("influxdb".to_owned(), [("down".into(), sink)].into());
    let samples = (0..990).map(|n| Sample {
        epoch: Epoch(1),
        sequence: n,
        due: at(n as i64 * 10),
        sent: at(n as i64 * 10),
        received: at(n as i64 * 10 + 1),
        transit_ns: 1_000_000,
        delay: ConsumerDelay::None,
        warmup: false,
    });
    let part = ReceiptPart {
        samples: samples.collect(),
        missing: vec![lost],
        ..ReceiptPart::default()
    };
    let head = ReceiptHead {
        daemon: DaemonId(2),
        domain: Domain(1),
        bound_ns: 0,
        era_changed: false,
        ack_limited: false,
        absences: Vec::new(),
    };
    facts.totals.know_device(&device());
    facts.totals.apply(&CutEntry::Receipt {
        second: Second(START / NANOS_PER_SECOND),
        head,
        parts: vec![("down".into(), part)],
    });
    facts.objectives = slo::list("p99<5ms, loss<1%").unwrap();
    facts.per_topic = true;
    facts
}

#[test]
fn a_run_with_losses_is_balanced_and_has_the_keys_of_the_design() {
    let report = Report::build(&facts());
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(exit_code(&report), 0);
}

#[test]
fn an_unequal_equation_is_exit_code_3_and_names_both_sides() {
    let mut facts = facts();
    facts.topics[0].stored = 989;
    facts.topics[0].written.plotted -= 100;
    let report = Report::build(&facts);
    assert_eq!(exit_code(&report), 3);
    let unequal: Vec<_> = report
        .ledger
        .unequal
        .iter()
        .map(|unequal| (unequal.equation, &unequal.topic[..], unequal.left, unequal.right))
        .collect();
    assert_eq!(
        unequal,
        [
            ("sent = plotted + unplotted + shed + unwritten", "down", 1_000, 900),
            ("unique = stored + dropped + buffered", "down", 997, 996),
            ("stored = plotted_samples + unplotted_samples", "down", 989, 990),
            (
                "stored = exported + pending + thinned + set_aside + sink_dropped",
                "down (influxdb)",
                989,
                990
            ),
        ]
    );
}

/// A sentence for each row: when lives of one name began and ended, and what they ask for together at 100 a second each.
#[test]
fn lives_of_one_name_are_offered_once_at_a_time() {
    for (lives, offered, sentence) in [
        (&[Some((0, 5)), Some((6, 9))][..], 100.0, "it came again"),
        (&[Some((0, 5)), Some((2, 9))], 200.0, "two went on side by side"),
        (
            &[Some((0, 5)), Some((2, 9)), Some((6, 7))],
            200.0,
            "never three at a time",
        ),
        (&[None, Some((0, 5))], 100.0, "one never sent"),
        (&[None], 100.0, "nor did the only one"),
    ] {
        let mut facts = RunFacts::new("r1".parse().unwrap(), "closed");
        for due in lives {
            let due = due.map(|(from, to)| (at(from), at(to)));
            facts.devices.push((
                device(),
                SendRow {
                    due,
                    ..SendRow::default()
                },
            ));
        }
        assert_eq!(Report::build(&facts).rate.offered, Some(offered), "{sentence}");
    }
}

/// Seconds in a row that are not valid for the same reason are one stretch.
#[test]
fn stretches_of_doubtful_seconds_are_told() {
    let mut facts = RunFacts::new("r1".parse().unwrap(), "closed");
    facts.totals.know_device(&device());
    for (second, late) in [(0, 0), (1, 50), (2, 50), (3, 0), (4, 50), (6, 50)] {
        let head = SendHead {
            daemon: DaemonId(1),
            domain: Domain(1),
            messages: 100,
            late,
            extreme: 0,
            bound_ns: 0,
            era_changed: false,
        };
        let part = SendPart {
            epoch: Epoch(1),
            scheduled: 100,
            sent: 100,
            ..SendPart::default()
        };
        let parts = vec![part];
        let second = Second(second);
        facts.totals.apply(&CutEntry::Send { second, head, parts });
    }
    let report = Report::build(&facts);
    let stretch = |from, seconds| Stretch {
        from: Second(from),
        seconds,
        reason: Reason::GeneratorLate,
    };
    assert_eq!(report.doubtful, [stretch(1, 2), stretch(4, 1), stretch(6, 1)]);
    assert_eq!((report.seconds["valid"], report.seconds["generator_late"]), (2, 4));
}

/// What a producer sent after its last entry is known from what arrived, and in no entry.
#[test]
fn what_a_vanished_producer_did_not_write_down_is_told() {
    let mut facts = facts();
    let row = &mut facts.devices[0].1;
    (row.ended, row.vanished, row.sent) = (false, true, 950);
    let written = &mut facts.topics[0].written;
    (written.unplotted, written.shed) = (0, 0);
    let ledger = Report::build(&facts).ledger;
    assert_eq!((ledger.balanced, ledger.unwritten), (Some(true), 50));
}

#[test]
fn a_closed_run_has_nothing_in_flight() {
    let mut facts = facts();
    if let Some(row) = &mut facts.topics[0].row {
        row.epochs.values_mut().for_each(|epoch| epoch.lost -= 1);
    }
    let report = Report::build(&facts);
    assert_eq!((report.ledger.in_flight, report.ledger.balanced), (0, Some(false)));
}

#[test]
fn in_the_course_of_a_run_nothing_is_judged() {
    let mut facts = facts();
    facts.state = "open".to_owned();
    facts.topics[0].row = None;
    let report = Report::build(&facts);
    assert_eq!(
        (report.ledger.balanced, report.ledger.in_flight, exit_code(&report)),
        (None, 1_000, 0)
    );
}

#[test]
fn a_restored_run_is_never_balanced() {
    let facts = RunFacts {
        restored: true,
        ..facts()
    };
    assert_eq!(Report::build(&facts).ledger.balanced, Some(false));
}

#[test]
fn a_missed_objective_is_exit_code_4() {
    let facts = RunFacts {
        objectives: slo::list("loss<0.1%").unwrap(),
        ..facts()
    };
    let report = Report::build(&facts);
    assert_eq!((exit_code(&report), report.slo[0].value), (4, Some(0.003)));
}

#[test]
fn a_vanished_producer_is_rebuilt_from_what_came() {
    let mut facts = facts();
    let (_, row) = &mut facts.devices[0];
    *row = SendRow {
        scheduled: 950,
        sent: 900,
        unsent: 0,
        queued: 50,
        acked: 899,
        refused: 0,
        ended: false,
        vanished: true,
        ..row.clone()
    };
    let report = Report::build(&facts);
    let ledger = &report.ledger;
    assert_eq!(ledger.balanced, Some(true), "{:?}", ledger.unequal);
    assert_eq!(
        (ledger.scheduled, ledger.sent, ledger.queued, ledger.unconfirmed),
        (1_000, 1_000, 0, 101)
    );
    assert_eq!((ledger.vanished, ledger.sent_at_most), (1, 1_100));
}

/// What a broker acknowledged of a lost range is told only where everything else is listed.
#[test]
fn a_broker_is_not_blamed_for_what_is_not_known() {
    let acked = |change: fn(&mut SendRow)| {
        let mut facts = facts();
        change(&mut facts.devices[0].1);
        Report::build(&facts).ledger.lost_ranges[0].acked
    };
    assert_eq!(acked(|_| {}), Some(2));
    let unconfirmed = |row: &mut SendRow| (row.acked, row.unconfirmed) = (998, 1);
    assert_eq!(acked(unconfirmed), None, "a range is missing");
    let listed = |row: &mut SendRow| {
        (row.acked, row.unconfirmed) = (998, 1);
        row.unconfirmed_ranges = vec![SeqRange { first: 12, last: 12 }];
    };
    assert_eq!(acked(listed), Some(1));
    assert_eq!(acked(|row| row.refused_ranges.clear()), None);
    let vanished = |row: &mut SendRow| (row.acked, row.ended, row.vanished) = (900, false, true);
    assert_eq!(acked(vanished), None);
}

#[test]
fn an_empty_run_is_a_report() {
    let report = Report::build(&RunFacts::new("r1".parse().unwrap(), "closed"));
    assert_eq!(
        (report.ledger.balanced, report.duration_s, exit_code(&report)),
        (Some(true), 0.0, 0)
    );
}

proptest! {
    /// A ledger whose rows were counted right is balanced, and one count off is not.
    #[test]
    fn every_count_matters(which in 0..14_usize) {
        let mut facts = facts();
        prop_assert_eq!(Report::build(&facts).ledger.balanced, Some(true));
        let TopicFacts { row, stored, dropped, .. } = &mut facts.topics[0];
        let row = row.as_mut().unwrap();
        let (_, send) = &mut facts.devices[0];
        let sink = facts.sinks.get_mut("influxdb").unwrap().values_mut().next().unwrap();
        let epoch = row.epochs.values_mut().next().unwrap();
        *[
            &mut send.scheduled, &mut send.sent, &mut send.unsent, &mut send.acked, &mut send.refused, &mut epoch.unique,
            &mut epoch.unheard, &mut row.arrived, &mut row.unique, &mut row.foreign, stored, dropped,
            &mut sink.pending, &mut sink.set_aside,
        ][which] += 1;
        prop_assert_eq!(Report::build(&facts).ledger.balanced, Some(false));
    }
}
