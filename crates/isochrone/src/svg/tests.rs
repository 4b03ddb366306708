use isochrone_model::{
    entry::{ConsumerDelay, Missing, MissingKind, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    id::{DaemonId, Domain, Epoch, Topic},
    ledger::Inequality,
    range::SeqRange,
    report::SloReport,
    row::Device,
    slo::Measured,
    time::{NANOS_PER_SECOND, Reference, Second},
    verdict::Reason,
    window::CutEntry,
};
use roxmltree::Document;

use super::*;
use crate::testing::device;

const START: i64 = 1_800_000_000;
/// A name that would end an element, a text and a document.
const HOSTILE: &str = "a&b<c>\"'</svg>\u{1}\u{fffe}]]>";

fn facts() -> RunFacts {
    let mut facts = RunFacts::new("r-1".parse().unwrap(), "closed");
    facts.totals.know_device(&Device {
        device: HOSTILE.to_owned(),
        topic: HOSTILE.into(),
        response_topic: HOSTILE.into(),
        qos: 1,
        rate: Some(20.0),
        ..device(1)
    });
    facts
}

/// 20 messages due in this second and received in it after `response_ns`; `late` of them the producer delayed.
fn second(facts: &mut RunFacts, at: i64, response_ns: i64, late: u64) {
    let second = Second(START + at);
    let due = Reference(second.0 * NANOS_PER_SECOND);
    let sample = |n: u64| Sample {
        epoch: Epoch(1),
        sequence: at as u64 * 20 + n,
        due: due + n as i64,
        sent: due + n as i64,
        received: due + n as i64 + response_ns,
        transit_ns: response_ns,
        delay: ConsumerDelay::None,
        warmup: false,
    };
    let part = ReceiptPart {
        samples: (0..20).map(sample).collect(),
        ..ReceiptPart::default()
    };
    receive(facts, second, part);
    let send = SendPart {
        epoch: Epoch(1),
        scheduled: 22,
        sent: 20,
        unsent: 2,
        ..SendPart::default()
    };
    let head = SendHead {
        daemon: DaemonId(1),
        domain: Domain(1),
        messages: 20,
        late,
        extreme: 0,
        bound_ns: 0,
        era_changed: false,
    };
    facts.totals.apply(&CutEntry::Send {
        second,
        head,
        parts: vec![send],
    });
}

fn receive(facts: &mut RunFacts, second: Second, part: ReceiptPart) {
    let head = ReceiptHead {
        daemon: DaemonId(2),
        domain: Domain(1),
        bound_ns: 0,
        era_changed: false,
        ack_limited: false,
        absences: Vec::new(),
    };
    facts.totals.apply(&CutEntry::Receipt {
        second,
        head,
        parts: vec![(Topic::from(HOSTILE), part)],
    });
}

fn draw(facts: &RunFacts) -> String {
    picture(facts, &Report::build(facts))
}

fn cells(document: &Document<'_>, class: &str) -> usize {
    let named = |node: &roxmltree::Node<'_, '_>| {
        node.attribute("class")
            .is_some_and(|of| of.split(' ').any(|of| of == class))
    };
    document.descendants().filter(named).count()
}

/// No name or objective can break the document; each is read back as it was, save what XML has no way to write.
#[test]
fn names_cannot_break_it() {
    let mut facts = facts();
    second(&mut facts, 0, 1_000_000, 0);
    let mut report = Report::build(&facts);
    report.run = HOSTILE.to_owned();
    report.ledger.balanced = Some(false);
    report.ledger.unequal = vec![Inequality {
        topic: HOSTILE.into(),
        equation: "sent = acked",
        left: 1,
        right: 2,
    }];
    report.slo = vec![SloReport {
        objective: "p99<50ms".to_owned(),
        value: None,
        met: false,
        supported: false,
        measured: Measured::Nothing,
    }];
    let svg = picture(&facts, &report);
    let document = Document::parse(&svg).expect("XML");
    let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
    let hostile = HOSTILE.replace(['\u{1}', '\u{fffe}'], "\u{fffd}");
    for text in [
        format!("run {hostile}"),
        format!("Isochrone: run {hostile}"),
        format!("{hostile}: sent = acked: 1 ≠ 2"),
        "objective p99<50ms: MISSED: nothing measured".to_owned(),
        "NOT balanced".to_owned(),
    ] {
        assert!(texts.contains(&text.as_str()), "no {text:?} in {texts:#?}");
    }
}

/// A cell a second, in the colour of its verdict; an outage keeps its place on the axis.
#[test]
fn every_second_has_a_cell() {
    let mut facts = facts();
    for at in [0, 1, 2, 6, 7] {
        second(&mut facts, at, 1_000_000, if at == 6 { 20 } else { 0 });
    }
    let report = Report::build(&facts);
    let svg = draw(&facts);
    let document = Document::parse(&svg).expect("XML");
    assert_eq!(cells(&document, "verdict"), 5);
    for reason in Reason::ALL {
        assert_eq!(
            cells(&document, reason.name()) as u64,
            report.seconds[reason.name()],
            "{reason}"
        );
    }
    assert_eq!(report.seconds["generator_late"], 1);
    let received = document
        .descendants()
        .find(|node| node.attribute("class") == Some("received"));
    let path = received.and_then(|node| node.attribute("d")).unwrap();
    assert_eq!(path.matches('M').count(), 2, "two stretches: {path}");
}

/// What is missing is stacked, and its legend is the range of the ledger.
#[test]
fn missing_messages_are_shown() {
    let mut facts = facts();
    second(&mut facts, 0, 1_000_000, 0);
    let due = Reference(START * NANOS_PER_SECOND);
    let missing = |kind, first, last| Missing {
        epoch: Epoch(1),
        kind,
        range: SeqRange { first, last },
        due: (due, due),
    };
    let part = ReceiptPart {
        missing: vec![
            missing(MissingKind::Lost, 20, 22),
            missing(MissingKind::Unrecorded, 23, 26),
        ],
        ..ReceiptPart::default()
    };
    receive(&mut facts, Second(START), part);
    let svg = draw(&facts);
    let document = Document::parse(&svg).expect("XML");
    let titles: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
    for text in [
        "0 s: 3 lost",
        "0 s: 4 unrecorded",
        "0 s: 2 unsent",
        "lost 3 … 7",
        "unsent 2",
    ] {
        assert!(titles.contains(&text), "no {text:?} in {titles:#?}");
    }
}

/// A long run has wider points, few enough to be small; a run of nothing is a picture too.
#[test]
fn any_run_has_a_picture() {
    let mut long = facts();
    for at in 0..3_000 {
        second(&mut long, at, 1_000_000 + at, 0);
    }
    let svg = draw(&long);
    let document = Document::parse(&svg).expect("XML");
    assert_eq!(cells(&document, "verdict"), 188);
    assert!(svg.contains("each point is 16 s"));
    assert!(svg.len() < 100_000, "{} bytes", svg.len());
    assert!(!svg.contains("latencies by second are known of"));

    let nothing = draw(&facts());
    assert!(Document::parse(&nothing).is_ok());
    assert!(nothing.contains("no latencies by second are known"));

    // Skew: below zero, at the lower edge.
    let mut skewed = facts();
    second(&mut skewed, 0, -1_000_000, 0);
    assert!(Document::parse(&draw(&skewed)).is_ok());
}
