use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::range::SeqRange;

const EPOCH: Epoch = Epoch(7);
const DRAIN: Duration = Duration::from_secs(5);
const SECOND: i64 = 1_000_000_000;

/// A message a millisecond, from second 1000 on; it takes half a millisecond.
fn sent_at(sequence: u64) -> Reference {
    Reference(1000 * SECOND + sequence as i64 * 1_000_000)
}

fn send(book: &mut Book, sequence: u64) -> Arrival {
    let sent = sent_at(sequence);
    book.arrive(EPOCH, sequence, sent, sent, sent + 500_000)
}

fn send_all(book: &mut Book, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        send(book, sequence);
    }
}

fn send_row(sent: u64, ended: bool) -> SendRow {
    let times = (sent > 0).then(|| (sent_at(0), sent_at(sent - 1)));
    SendRow {
        scheduled: sent,
        sent,
        due: times,
        sent_at: times,
        ended,
        ..SendRow::default()
    }
}

fn listening_since(at: Reference, left: Adoption) -> Book {
    let mut book = Book::new();
    book.know(EPOCH);
    book.adopt(left);
    book.subscribed(at);
    book
}

fn reload(book: &Book) -> Book {
    let bytes = book.save();
    let again = Book::load(&bytes).unwrap();
    assert_eq!(again.row(), book.row());
    assert_eq!(again.save(), bytes);
    again
}

fn ranges(missing: &[Missing]) -> Vec<(MissingKind, u64, u64)> {
    missing
        .iter()
        .map(|missing| (missing.kind, missing.range.first, missing.range.last))
        .collect()
}

/// Everything that exists is in exactly one place.
fn assert_balanced(book: &Book, sent: u64) {
    let row = book.row();
    let epoch = row.epochs.get(&EPOCH).cloned().unwrap_or_default();
    let sum = epoch.unique + epoch.lost + epoch.unrecorded + epoch.unheard + book.in_flight(EPOCH);
    assert_eq!(sent, sum, "{epoch:?}");
    assert_eq!(
        row.arrived,
        row.unique + row.duplicate + row.retained + row.unstamped + row.foreign
    );
    assert_eq!(row.unique, epoch.unique);
}

/// One thing that happens to a topic.
#[derive(Clone, Debug)]
enum Event {
    Arrive(u64),
    Pass(i64),
    Reload,
    Adopt(Adoption),
    Subscribed,
    Told(bool),
}

fn event(messages: u64) -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..messages).prop_map(Event::Arrive),
        2 => (0..4 * SECOND).prop_map(Event::Pass),
        1 => Just(Event::Reload),
        1 => prop_oneof![
            Just(Adoption::Fresh), Just(Adoption::Resumed), Just(Adoption::Died { last_saved: Reference(0) }),
            any::<bool>().prop_map(|session| Adoption::GivenBack { session }),
        ].prop_map(Event::Adopt),
        1 => Just(Event::Subscribed),
        1 => any::<bool>().prop_map(Event::Told),
    ]
}

proptest! {
    /// Whatever order, copies, losses, waits and reloads: unique is the set of what came, every other copy is a
    /// duplicate, and what did not come is lost.
    #[test]
    fn agrees_with_a_plain_set(
        order in vec((0..200_u64, 0..40_i64), 0..400), wait in vec(0..10 * SECOND, 0..400), reloads in vec(0..400_usize, 0..4),
    ) {
        let mut book = Book::new();
        book.know(EPOCH);
        let mut set = BTreeSet::new();
        let mut now = sent_at(0);
        let mut copies = 0;
        // Mostly in order, each displaced a little.
        let mut order = order;
        order.sort_by_key(|&(sequence, displaced)| sequence as i64 + displaced);
        for (at, &(sequence, _)) in order.iter().enumerate() {
            now = now + wait.get(at).copied().unwrap_or(0) / 20;
            let reordered = set.last().is_some_and(|&last| sequence < last);
            let first = set.insert(sequence);
            copies += u64::from(!first);
            match book.arrive(EPOCH, sequence, sent_at(sequence), sent_at(sequence), now) {
                Arrival::First { reordered: said } => prop_assert!(first && said == reordered),
                Arrival::Found(missing) => prop_assert_eq!((first, missing.range), (true, SeqRange { first: sequence, last: sequence })),
                Arrival::Duplicate => prop_assert!(!first),
                Arrival::Foreign => prop_assert!(false, "the epoch is known"),
            }
            book.expire(now, DRAIN);
            if reloads.contains(&at) {
                book = reload(&book);
            }
            assert_balanced(&book, set.last().map_or(0, |last| last + 1));
        }
        book.last_word(EPOCH, &send_row(200, true), now);
        assert_balanced(&book, 200);
        book.expire(now + 6 * SECOND, DRAIN);
        prop_assert!(book.all_settled());
        assert_balanced(&book, 200);
        let row = book.row();
        prop_assert_eq!(row.unique, set.len() as u64);
        prop_assert_eq!(row.duplicate, copies);
        prop_assert_eq!(row.epochs[&EPOCH].lost, 200 - set.len() as u64);
    }

    /// sent = unique + lost + unrecorded + unheard + in_flight through any history; what is reported and taken back
    /// adds up to the counts; at the end nothing is in flight.
    #[test]
    fn balances_through_any_history(events in vec(event(100), 0..200)) {
        let mut book = Book::new();
        book.know(EPOCH);
        let mut now = sent_at(100);
        let mut told = false;
        let mut highest = 0;
        let mut given = 0_i64;
        let count = |missing: Vec<Missing>| missing.iter().map(|missing| missing.range.count() as i64).sum::<i64>();
        for event in events {
            match event {
                Event::Arrive(sequence) => {
                    highest = highest.max(sequence + 1);
                    if let Arrival::Found(missing) = book.arrive(EPOCH, sequence, sent_at(sequence), sent_at(sequence), now) {
                        given -= missing.range.count() as i64;
                    }
                }
                Event::Pass(ns) => now = now + ns,
                Event::Reload => book = reload(&book),
                Event::Adopt(left) => book.adopt(left),
                Event::Subscribed => book.subscribed(now),
                Event::Told(ended) => {
                    told |= ended;
                    book.last_word(EPOCH, &send_row(100, ended), now);
                }
            }
            given += count(book.expire(now, DRAIN));
            assert_balanced(&book, if told { 100 } else { highest });
        }
        book.last_word(EPOCH, &send_row(100, true), now);
        given += count(book.close(now));
        assert_balanced(&book, 100);
        prop_assert!(book.all_settled() && book.in_flight(EPOCH) == 0);
        let epoch = &book.row().epochs[&EPOCH];
        prop_assert_eq!(given, (epoch.lost + epoch.unrecorded + epoch.unheard) as i64);
        let listed: u64 = epoch.ranges.iter().map(|missing| missing.range.count()).sum();
        prop_assert_eq!(listed as i64, given);
    }

    /// No bytes make a load panic, nor does anything done with what was loaded.
    #[test]
    fn any_bytes(mut bytes: Vec<u8>, gaps in vec(0..50_u64, 1..20), at: prop::sample::Index, byte: u8) {
        let _ = Book::load(&bytes);
        bytes.insert(0, 1);
        let _ = Book::load(&bytes);
        let mut book = listening_since(sent_at(3), Adoption::Fresh);
        for sequence in gaps {
            send(&mut book, sequence);
        }
        let mut bytes = book.save();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut book) = Book::load(&bytes) {
            send(&mut book, 30);
            book.expire(Reference(i64::MAX), DRAIN);
            book.close(Reference(0));
            let _ = book.row();
        }
    }
}

#[test]
fn what_a_dead_holder_may_have_received_is_unrecorded_and_later_gaps_are_lost() {
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    (0..100).for_each(|sequence| assert_eq!(send(&mut book, sequence), Arrival::First { reordered: false }));
    let mut book = reload(&book);
    book.adopt(Adoption::Died {
        last_saved: sent_at(99),
    });
    book.subscribed(sent_at(6_000));
    // The session brings what the dead one had not acknowledged.
    send_all(&mut book, 5_900..6_100);
    send_all(&mut book, 6_110..12_000);
    let missing = book.expire(sent_at(11_999), DRAIN);
    assert_eq!(
        ranges(&missing),
        [(MissingKind::Unrecorded, 100, 5_899), (MissingKind::Lost, 6_100, 6_109)]
    );
    assert_eq!((missing[0].due.0, missing[0].due.1), (sent_at(100), sent_at(5_899)));
}

#[test]
fn a_gap_that_a_dead_holder_had_open_is_unrecorded() {
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    send(&mut book, 0);
    send(&mut book, 2);
    let mut book = reload(&book);
    book.adopt(Adoption::Died { last_saved: sent_at(2) });
    assert_eq!(
        book.expire(sent_at(60_000), DRAIN),
        [],
        "nobody listens yet, so nothing is given up"
    );
    book.subscribed(sent_at(60_000));
    assert_eq!(
        book.expire(sent_at(60_001), DRAIN),
        [],
        "the wait starts with the subscription"
    );
    assert_eq!(
        ranges(&book.expire(sent_at(65_001), DRAIN)),
        [(MissingKind::Unrecorded, 1, 1)]
    );
}

#[test]
fn what_was_sent_before_anybody_listened_is_unheard() {
    let mut book = listening_since(sent_at(50), Adoption::Fresh);
    send_all(&mut book, 50..10_000);
    assert_eq!(
        ranges(&book.expire(sent_at(9_999), DRAIN)),
        [(MissingKind::Unheard, 0, 49)]
    );
}

#[test]
fn the_first_messages_of_a_device_that_waited_for_us_are_lost() {
    // By the pace of what came later.
    let mut book = listening_since(sent_at(0) + -300_000_000, Adoption::Fresh);
    send_all(&mut book, 5..10_000);
    let missing = book.expire(sent_at(9_999), DRAIN);
    assert_eq!(ranges(&missing), [(MissingKind::Lost, 0, 4)]);
    assert_eq!(missing[0].due, (sent_at(0), sent_at(4)));
    // By the producer's word, when only one came.
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    send(&mut book, 5);
    book.last_word(EPOCH, &send_row(6, false), sent_at(6));
    assert_eq!(ranges(&book.expire(sent_at(9_999), DRAIN)), [(MissingKind::Lost, 0, 4)]);
}

#[test]
fn of_a_silent_device_only_what_was_sent_before_the_subscription_is_unheard() {
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    book.last_word(EPOCH, &send_row(1_000, true), sent_at(1_000));
    assert_eq!(book.in_flight(EPOCH), 1_000);
    assert_eq!(
        ranges(&book.expire(sent_at(6_000), DRAIN)),
        [(MissingKind::Lost, 0, 999)]
    );

    let mut book = listening_since(sent_at(10_000), Adoption::Fresh);
    book.last_word(EPOCH, &send_row(1_000, true), sent_at(10_000));
    assert_eq!(
        book.expire(sent_at(11_000), DRAIN),
        [],
        "the wait starts with the subscription"
    );
    assert_eq!(
        ranges(&book.expire(sent_at(15_000), DRAIN)),
        [(MissingKind::Unheard, 0, 999)]
    );
}

#[test]
fn between_give_back_and_subscription_messages_are_unheard_without_a_session_and_lost_with_one() {
    for (session, kind) in [(false, MissingKind::Unheard), (true, MissingKind::Lost)] {
        let mut book = listening_since(sent_at(0), Adoption::Fresh);
        send_all(&mut book, 0..100);
        let mut book = reload(&book);
        book.adopt(Adoption::GivenBack { session });
        book.subscribed(sent_at(200));
        send_all(&mut book, 200..9_000);
        assert_eq!(ranges(&book.expire(sent_at(8_000), DRAIN)), [(kind, 100, 199)]);
    }
}

#[test]
fn a_connection_lost_under_a_held_claim_makes_loss() {
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    send_all(&mut book, 0..100);
    book.adopt(Adoption::Resumed);
    book.subscribed(sent_at(300));
    send_all(&mut book, 300..9_000);
    assert_eq!(
        ranges(&book.expire(sent_at(8_000), DRAIN)),
        [(MissingKind::Lost, 100, 299)]
    );
}

#[test]
fn a_late_copy_moves_back_once() {
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    send_all(&mut book, (0..10).chain(20..9_000));
    assert_eq!(
        ranges(&book.expire(sent_at(8_000), DRAIN)),
        [(MissingKind::Lost, 10, 19)]
    );
    let mut book = reload(&book);
    let Arrival::Found(missing) = send(&mut book, 14) else {
        panic!("it had been given up")
    };
    assert_eq!(ranges(&[missing]), [(MissingKind::Lost, 14, 14)]);
    assert_eq!(send(&mut book, 14), Arrival::Duplicate);
    let row = book.row();
    assert_eq!((row.epochs[&EPOCH].lost, row.reordered, row.duplicate), (9, 1, 1));
    assert_eq!(
        ranges(&row.epochs[&EPOCH].ranges),
        [(MissingKind::Lost, 10, 13), (MissingKind::Lost, 15, 19)]
    );
}

#[test]
fn memory_is_bounded_and_what_is_forgotten_stays_lost() {
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    send_all(&mut book, (0..200_000).step_by(2));
    book.expire(sent_at(400_000), DRAIN);
    let epoch = &book.row().epochs[&EPOCH];
    assert_eq!(epoch.lost, 99_999);
    assert_eq!(epoch.ranges.len() as u64 + epoch.forgotten_ranges, 99_999);
    assert_eq!(epoch.ranges.len(), given::MAX_REMEMBERED);
    assert!(book.save().len() < 16_384);
    assert_eq!(
        send(&mut book, 1),
        Arrival::Duplicate,
        "forgotten, so it cannot be told from a copy"
    );
    assert_balanced(&book, 199_999);
}

#[test]
fn a_vanished_producer_sent_at_least_what_came() {
    let vanished = SendRow {
        vanished: true,
        ..send_row(40, false)
    };
    let mut book = listening_since(sent_at(0), Adoption::Fresh);
    send_all(&mut book, 0..50);
    book.last_word(EPOCH, &vanished, sent_at(50));
    assert!(!book.all_settled(), "it may only be cut off, and sending");
    send_all(&mut book, 50..55);
    book.expire(sent_at(60), DRAIN);
    assert_eq!((book.all_settled(), book.in_flight(EPOCH)), (false, 0));
    let mut silent = Book::load(&book.save()).unwrap();
    assert!(silent.expire(sent_at(9_000), DRAIN).is_empty() && silent.all_settled());
    // It was only away, and tells the exact number now.
    let mut exact = Book::load(&book.save()).unwrap();
    exact.last_word(EPOCH, &send_row(55, true), sent_at(60));
    assert!(exact.all_settled());
    book.last_word(EPOCH, &send_row(60, true), sent_at(60));
    assert_eq!((book.all_settled(), book.in_flight(EPOCH)), (false, 5));
    book.expire(sent_at(9_000), DRAIN);
    assert!(book.all_settled());
    assert_eq!(book.row().epochs[&EPOCH].lost, 5);
}

#[test]
fn an_unclaimed_topic_settles_as_unheard() {
    let mut book = Book::new();
    book.last_word(EPOCH, &send_row(100, true), sent_at(100));
    assert_eq!(
        ranges(&book.settle_unclaimed(sent_at(60_000))),
        [(MissingKind::Unheard, 0, 99)]
    );
    assert!(book.all_settled() && book.row().closed);
}

#[test]
fn an_unknown_epoch_counts_nothing() {
    let mut book = Book::new();
    assert_eq!(send(&mut book, 0), Arrival::Foreign);
    assert_eq!(book.row().arrived, 0);
    book.count_foreign();
    book.count_retained();
    book.count_unstamped();
    assert_eq!(book.row().arrived, 3);
}
