//! An account against a store that drops cuts at any moment.

use isochrone_sink::Counts;
use isochrone_store::types::SinkCounts;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    /// The sink is offered the next cut, which may be in memory though the store has dropped it.
    Offer,
    /// It is done with the oldest that it has in hand.
    Deliver,
    /// The plotter saves.
    Save,
    /// The store drops the cut after its cursor.
    Drop,
    /// Another plotter takes over; what the sink had in hand is forgotten.
    Die,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Offer),
        6 => Just(Event::Deliver),
        4 => Just(Event::Save),
        3 => Just(Event::Drop),
        1 => Just(Event::Die),
    ];
    prop::collection::vec(event, 0..100)
}

const CUTS: u64 = 20;

/// Cut `n` has `n` samples of one topic.
fn delivery(cut: u64) -> Delivery {
    let counts = Counts {
        exported: cut,
        ..Counts::default()
    };
    Delivery {
        topics: BTreeMap::from([(Topic::from("t"), counts)]),
    }
}

fn sum_to(cut: u64) -> u64 {
    cut * (cut + 1) / 2
}

fn counts(cursor: &Cursor) -> SinkCounts {
    cursor.topics.values().next().copied().unwrap_or_default()
}

/// As the stores do it: the answer is the stored cursor when it is beyond where the plotter knew it.
fn save(account: &mut Account, store: &mut Cursor) {
    while let Some((cursor, known)) = account.to_save() {
        if store.cut > known {
            account.catch_up(store.clone());
        } else {
            *store = cursor.clone();
            account.saved();
        }
    }
}

proptest! {
    /// However drops, deliveries and saves fall, the stored cursor accounts for each sample up to it once; and as long as no
    /// plotter dies, as exported exactly what the sink had.
    #[test]
    fn every_sample_is_counted_once(events in events()) {
        let mut store = Cursor::default();
        let mut account = Account::new(store.clone());
        let mut hand = std::collections::VecDeque::new();
        let (mut had, mut died) = (0, false);
        for event in events {
            match event {
                Event::Offer if account.had() < CUTS => {
                    let next = account.had() + 1;
                    account.offer(next);
                    hand.push_back(next);
                }
                Event::Deliver => {
                    if let Some(cut) = hand.pop_front() {
                        account.deliver(cut, &delivery(cut));
                        had += cut;
                    }
                }
                Event::Save => {
                    account.ask();
                    save(&mut account, &mut store);
                }
                Event::Drop if store.cut < CUTS => {
                    store.cut += 1;
                    let cut = store.cut;
                    store.topics.entry(Topic::from("t")).or_default().sink_dropped += cut;
                }
                Event::Die => {
                    died = true;
                    hand.clear();
                    account = Account::new(store.clone());
                }
                Event::Offer | Event::Drop => {}
            }
            prop_assert_eq!(counts(&store).sum(), sum_to(store.cut));
        }
        for cut in hand {
            account.deliver(cut, &delivery(cut));
            had += cut;
        }
        account.ask();
        save(&mut account, &mut store);
        prop_assert_eq!(counts(&store).sum(), sum_to(store.cut));
        if !died {
            prop_assert_eq!(counts(&store).exported, had);
        }
    }
}
