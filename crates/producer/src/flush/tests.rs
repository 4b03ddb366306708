use isochrone_model::{histogram::Histogram, range::SeqRange};

use super::*;

fn outbox() -> Outbox {
    let author = Author {
        daemon: DaemonId(1),
        domain: Domain(1),
    };
    Outbox::new(author, 1)
}

fn due(second: i64, sequence: u64) -> DueSecond {
    let one = SeqRange {
        first: sequence,
        last: sequence,
    };
    DueSecond {
        second: Second(second),
        part: SendPart {
            epoch: Epoch(1),
            sent: 1,
            refused: vec![one],
            late: Histogram::default(),
            ..SendPart::default()
        },
        late: 1,
        extreme: 0,
    }
}

/// While the store is away accounts are bounded, and those of seconds with parts are not lost: each late message of this
/// partition is in some entry.
#[test]
fn accounts_of_held_parts_are_kept() {
    // All seconds are this partition's, or every other is another's.
    for every in [1, 2] {
        let mut outbox = outbox();
        let last = 2 * MOST_ACCOUNTS as i64;
        for second in 0..last {
            if second % every == 0 {
                outbox.add(Epoch(1), SendRow::default(), vec![due(second, second as u64 * 2)]);
            }
            outbox.add_account(Second(second), Account::of(&due(second, 0)));
        }
        assert!(outbox.accounts.len() <= MOST_ACCOUNTS);
        let with_parts = outbox
            .accounts
            .iter()
            .filter(|(second, _)| outbox.seconds.contains_key(second));
        let told: u64 = with_parts.map(|(_, account)| account.late).sum();
        assert_eq!(told, (last / every) as u64, "every {every}");
    }
}

/// A last word is final, so it comes with the last part of its device; a flush before it has the row as it was.
#[test]
fn a_last_word_comes_with_the_last_part() {
    let mut outbox = Outbox::new(outbox().author, 100);
    let row = |ended| SendRow {
        ended,
        ..SendRow::default()
    };
    for second in 0..MOST_PARTS_OF_A_FLUSH as i64 + 10 {
        outbox.add(Epoch(1), row(false), vec![due(second, second as u64)]);
    }
    outbox.add(Epoch(1), row(true), Vec::new());
    outbox.add(Epoch(2), row(false), Vec::new());
    let first = outbox.next().unwrap();
    assert_eq!(first.entries.len(), MOST_PARTS_OF_A_FLUSH);
    assert!(first.rows.len() == 2 && first.rows.iter().all(|(_, row)| !row.ended));
    outbox.stored(Monotonic(0));
    let last = outbox.next().unwrap();
    assert_eq!(last.entries.len(), 10);
    assert!(last.rows.contains(&(Epoch(1), row(true))) && last.rows.len() == 2);
}

/// A second of many devices is several entries, and the account of the whole producer is in one of them alone.
#[test]
fn an_account_counts_once() {
    let mut outbox = Outbox::new(outbox().author, 4_000);
    let devices = 3_200;
    for device in 0..devices {
        let mut due = due(0, device);
        due.part.epoch = Epoch(device);
        outbox.add_account(Second(0), Account::of(&due));
        outbox.add(Epoch(device), SendRow::default(), vec![due]);
    }
    let flush = outbox.next().unwrap();
    let parts: Vec<usize> = flush.entries.iter().map(|entry| entry.parts.len()).collect();
    assert_eq!(parts, [1_500, 1_500, 200]);
    let heads = flush.entries.iter().map(|entry| SendHead::decode(&entry.head).unwrap());
    let told: Vec<(u64, u64)> = heads.map(|head| (head.messages, head.late)).collect();
    assert_eq!(told, [(devices, devices), (0, 0), (0, 0)]);
}

/// A store that takes everything and never says that it will keep it is not remembered without bound.
#[test]
fn what_the_store_may_forget_is_bounded() {
    let mut outbox = outbox();
    for second in 0..2 * MOST_RECENT as i64 {
        outbox.add(Epoch(1), SendRow::default(), vec![due(second, second as u64)]);
        outbox.next().unwrap();
        outbox.stored(Monotonic(0));
    }
    outbox.repeat_recent();
    let mut batches = Vec::new();
    while let Some(flush) = outbox.next() {
        batches.push(flush.batch);
        outbox.under_way = None;
    }
    let newest = MOST_RECENT as u64 + 1..=2 * MOST_RECENT as u64;
    assert_eq!(batches, newest.collect::<Vec<_>>());
}

/// After a lost lease nothing is taken with a row that is not final: what waits goes without, last words with the last of it.
#[test]
fn last_words_after_a_lost_lease_come_last() {
    let mut outbox = Outbox::new(outbox().author, 100);
    outbox.add(Epoch(1), SendRow::default(), vec![due(0, 0)]);
    outbox.next();
    for second in 1..MOST_PARTS_OF_A_FLUSH as i64 + 10 {
        outbox.add(Epoch(1), SendRow::default(), vec![due(second, second as u64)]);
    }
    let last_word = SendRow {
        ended: true,
        ..SendRow::default()
    };
    outbox.end_with(vec![(Epoch(1), last_word.clone())]);
    let mut rows = Vec::new();
    while let Some(flush) = outbox.next() {
        rows.push(flush.rows.clone());
        outbox.stored(Monotonic(0));
    }
    assert_eq!(rows, [vec![], vec![], vec![(Epoch(1), last_word)]]);
}

/// What the store will not take is given up as a whole: no last word comes without the parts before it.
#[test]
fn what_is_given_up_says_nothing_more() {
    let mut outbox = outbox();
    outbox.add(Epoch(1), SendRow::default(), vec![due(5, 0)]);
    outbox.next();
    outbox.add(Epoch(1), SendRow::default(), vec![due(6, 1)]);
    outbox.give_up();
    assert!(outbox.next().is_none() && outbox.is_safe());
}

/// What was written is kept until the store has lived on for as long as it may forget: not while it is away.
#[test]
fn what_the_store_may_forget_is_kept() {
    const SECOND: u64 = 1_000_000_000;
    let mut outbox = outbox();
    outbox.add(Epoch(1), SendRow::default(), vec![due(5, 0)]);
    let flush = outbox.next().unwrap();
    outbox.stored(Monotonic(10 * SECOND));
    let until = |lasting: u64| move |stored| stored < Monotonic(lasting * SECOND);
    outbox.forget(until(10));
    assert!(!outbox.is_safe());
    outbox.repeat_recent();
    assert!(
        Arc::ptr_eq(&outbox.next().unwrap(), &flush),
        "the same again, under the same number"
    );
    outbox.stored(Monotonic(20 * SECOND));
    outbox.forget(until(21));
    assert!(outbox.is_safe());
}

/// Ranges that pile up in one second are joined, and their count is kept.
#[test]
fn piled_up_ranges_are_joined() {
    let mut outbox = outbox();
    for sequence in 0..10_000 {
        outbox.add(Epoch(1), SendRow::default(), vec![due(5, sequence * 2)]);
    }
    let part = &outbox.seconds[&Second(5)][&(Epoch(1), false)].part;
    assert!(part.refused.len() <= SendPart::MAX_RANGES);
    assert_eq!(part.refused.iter().map(|range| range.count()).sum::<u64>(), 10_000);
}
