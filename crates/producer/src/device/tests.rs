//! A device against a publisher that does what a script says.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use isochrone_model::{
    id::Epoch,
    range::SeqRange,
    rate::Rate,
    schedule::{ScheduleKind, ScheduleSpec},
    time::Second,
};
use isochrone_transport::{Connected, Disconnected, Offer};
use proptest::prelude::*;

use super::{sending::FLAT_OUT_TURN, *};
use crate::{flush, rows::DueSecond};

const MS: u64 = 1_000_000;

/// What the script's hand and the publisher share.
#[derive(Default)]
struct Wire {
    up: bool,
    room: usize,
    /// Messages the next writes take.
    takes: usize,
    pending: VecDeque<(u64, Reference, Monotonic)>,
    unanswered: BTreeMap<u64, (Reference, Monotonic)>,
    released: BTreeMap<u64, Reference>,
    happened: Vec<PublishEvent>,
    closed: bool,
    now: u64,
    qos: u8,
    written: u64,
    /// Offered with a warm-up stamp.
    warm: u64,
}

struct Scripted(Rc<RefCell<Wire>>);

impl Wire {
    fn write(&mut self, events: &mut Vec<PublishEvent>) {
        while self.up && self.takes > 0 {
            let Some((sequence, due, due_monotonic)) = self.pending.pop_front() else {
                return;
            };
            assert_eq!(sequence, self.written, "sequences leave in order, none twice");
            self.written += 1;
            self.takes -= 1;
            let sent_monotonic = Monotonic(self.now);
            if self.qos > 0 {
                self.unanswered.insert(sequence, (due, sent_monotonic));
            }
            let sent = due + sent_monotonic.since_ns(due_monotonic);
            events.push(PublishEvent::Sent {
                sequence,
                due,
                sent,
                sent_monotonic,
            });
        }
    }

    fn answer(&mut self, pick: usize, refuse: bool) {
        let Some((&sequence, &(due, sent_monotonic))) = self.unanswered.iter().nth(pick % self.unanswered.len().max(1))
        else {
            return;
        };
        self.unanswered.remove(&sequence);
        let at = Monotonic(self.now);
        self.happened.push(if refuse {
            PublishEvent::Refused {
                sequence,
                due,
                reason: "quota exceeded",
            }
        } else {
            if self.qos == 2 {
                self.released.insert(sequence, due);
            }
            PublishEvent::Acked {
                sequence,
                due,
                sent_monotonic,
                at,
                unrouted: false,
            }
        });
    }

    fn complete(&mut self) {
        if let Some((sequence, due)) = self.released.pop_first() {
            let at = Monotonic(self.now);
            self.happened.push(PublishEvent::Completed {
                sequence,
                due,
                released: at,
                at,
            });
        }
    }
}

impl Publisher for Scripted {
    fn room(&self) -> usize {
        let wire = self.0.borrow();
        if wire.up {
            wire.room.saturating_sub(wire.pending.len())
        } else {
            0
        }
    }
    fn offer(&mut self, offer: Offer) {
        let mut wire = self.0.borrow_mut();
        wire.warm += u64::from(offer.warmup);
        let Offer {
            sequence,
            due,
            due_monotonic,
            ..
        } = offer;
        wire.pending.push_back((sequence, due, due_monotonic));
    }
    fn flush(&mut self, events: &mut Vec<PublishEvent>) {
        self.0.borrow_mut().write(events);
    }
    fn poll(&mut self, _context: &mut Context<'_>, events: &mut Vec<PublishEvent>) -> Poll<()> {
        let mut wire = self.0.borrow_mut();
        events.append(&mut wire.happened);
        if wire.closed {
            events.push(PublishEvent::Closed);
            return Poll::Ready(());
        }
        wire.write(events);
        Poll::Pending
    }
    fn close(&mut self, _clean: Clean) {
        let mut wire = self.0.borrow_mut();
        wire.closed = true;
        wire.pending.clear();
    }
    fn unanswered(&self) -> Vec<u64> {
        let wire = self.0.borrow();
        wire.unanswered
            .keys()
            .copied()
            .chain(wire.pending.iter().map(|one| one.0))
            .collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Drive,
    Room(usize),
    Takes(usize),
    Answer(usize, bool),
    Complete,
    Up(bool),
    Report,
    Deadline,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..300).prop_map(Step::Pass),
        3 => Just(Step::Drive),
        1 => (0_usize..20).prop_map(Step::Room),
        3 => (0_usize..30).prop_map(Step::Takes),
        3 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(pick, refuse)| Step::Answer(pick, refuse)),
        2 => Just(Step::Complete),
        2 => prop::bool::weighted(0.8).prop_map(Step::Up),
        1 => Just(Step::Report),
        1 => Just(Step::Deadline),
    ]
}

/// A device at a bench: a script does to it what a worker and a broker do.
struct Bench {
    device: Emulated,
    wire: Rc<RefCell<Wire>>,
    now: u64,
    seconds: Vec<DueSecond>,
}

impl Bench {
    fn new(qos: u8, queue: usize) -> Bench {
        let wire = Rc::new(RefCell::new(Wire {
            qos,
            room: 5,
            ..Wire::default()
        }));
        let limits = Limits {
            queue,
            drain: Duration::from_secs(2),
        };
        let mut device = Emulated::new(Account::new(Epoch(7), qos, MS as i64), limits);
        device.connect(Box::new(Scripted(wire.clone())));
        Bench {
            device,
            wire,
            now: 5_000 * MS,
            seconds: Vec::new(),
        }
    }

    fn moment(&self) -> Moment {
        let offset = Offset {
            reference_minus_monotonic_ns: 1_000_000_000_000_000_300,
            bound_ns: 0,
            era: 0,
        };
        Moment {
            now: Monotonic(self.now),
            offset,
        }
    }

    fn pass(&mut self, ms: u64) -> Option<Monotonic> {
        self.now += ms * MS;
        self.wire.borrow_mut().now = self.now;
        let mut next;
        loop {
            next = self.device.collect(self.moment());
            self.device.send(self.moment(), &mut Vec::new());
            if next.is_none_or(|at| at.0 > self.now) {
                return next;
            }
        }
    }

    fn drive(&mut self) -> Poll<()> {
        let mut context = Context::from_waker(Waker::noop());
        self.device.drive(&mut context, self.moment(), &mut Vec::new()).1
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(ms) => drop(self.pass(ms)),
            Step::Drive => drop(self.drive()),
            Step::Room(room) => self.wire.borrow_mut().room = room,
            Step::Takes(takes) => self.wire.borrow_mut().takes += takes,
            Step::Answer(pick, refuse) => self.wire.borrow_mut().answer(pick, refuse),
            Step::Complete => self.wire.borrow_mut().complete(),
            Step::Up(up) => self.up(up),
            Step::Report => {
                let seconds = self.device.account().take().1;
                self.seconds.extend(seconds);
            }
            Step::Deadline => drop(self.device.deadline_passed(Monotonic(self.now))),
        }
    }

    fn up(&mut self, up: bool) {
        let mut wire = self.wire.borrow_mut();
        if wire.closed || wire.up == up {
            return;
        }
        wire.up = up;
        wire.happened.push(if up {
            let at = Monotonic(self.now);
            PublishEvent::Connected(Connected {
                at,
                session_present: true,
                tcp_ns: 10,
                tls_ns: None,
                connack_ns: 20,
            })
        } else {
            let detail = "the script says so".to_owned();
            PublishEvent::Disconnected(Disconnected {
                reason: "closed by peer",
                detail,
                needs_setting: false,
            })
        });
    }

    fn start(&mut self, spec: &ScheduleSpec) {
        let pace = match spec.rate {
            Rate::Max => Pace::FlatOut {
                count: spec.count,
                duration: spec.duration,
                warmup: spec.warmup,
            },
            Rate::PerSecond(_) => Pace::Slots(Box::new(Schedule::new(spec, 1, 0, 1))),
        };
        self.device.start(pace, Monotonic(self.now));
    }

    /// Until it has ended, or for a minute.
    fn run_out(&mut self) {
        if self.device.flat_out() {
            drop(self.device.finish(Monotonic(self.now)));
        }
        for _ in 0..600 {
            if self.device.ended() {
                break;
            }
            self.pass(100);
            drop(self.device.deadline_passed(Monotonic(self.now)));
            let _ = self.drive();
        }
        self.step(Step::Report);
    }
}

fn spec(rate: Rate, count: Option<u64>, duration: Option<Duration>) -> ScheduleSpec {
    let kind = ScheduleKind::Constant;
    ScheduleSpec {
        rate,
        kind,
        ramp: Duration::ZERO,
        warmup: Duration::ZERO,
        duration,
        count,
    }
}

fn counted(ranges: &[SeqRange]) -> u64 {
    ranges.iter().map(|range| range.count()).sum()
}

proptest! {
    /// Whatever the connection does and whenever it is told to end: scheduled = sent + unsent + queued after every
    /// step, what is reported by due-second adds up to the row, and at the end sent = acked + refused + unconfirmed.
    #[test]
    fn every_place_of_the_schedule_is_counted_once(
        qos in 0_u8..3,
        queue in 1_usize..40,
        flat_out in prop::bool::weighted(0.2),
        steps in prop::collection::vec(step(), 0..150),
        finish_at in 0_usize..200,
    ) {
        let mut bench = Bench::new(qos, queue);
        let rate = if flat_out { Rate::Max } else { Rate::PerSecond(100.0) };
        bench.start(&spec(rate, Some(300), None));
        for (number, step) in steps.into_iter().enumerate() {
            if number == finish_at {
                bench.device.finish(Monotonic(bench.now));
            }
            bench.step(step);
            let queued = bench.device.queue.len() as u64;
            let row = bench.device.account.row();
            prop_assert_eq!(row.queued, queued);
            prop_assert_eq!(row.scheduled, row.sent + row.unsent + row.queued);
            prop_assert_eq!(row.sent, bench.wire.borrow().written);
            prop_assert!(queued <= queue.max(FLAT_OUT_TURN) as u64);
        }
        bench.run_out();
        prop_assert!(bench.device.ended());

        let row = bench.device.account.row().clone();
        prop_assert_eq!(row.queued, 0);
        prop_assert!(row.ended);
        prop_assert_eq!(row.scheduled, row.sent + row.unsent);
        prop_assert_eq!(row.sent, bench.wire.borrow().written);
        prop_assert_eq!(row.unconfirmed, counted(&row.unconfirmed_ranges));
        prop_assert_eq!(row.refused, counted(&row.refused_ranges));
        if qos > 0 {
            prop_assert_eq!(row.sent, row.acked + row.refused + row.unconfirmed);
        }

        let sum = |of: &dyn Fn(&DueSecond) -> u64| bench.seconds.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(&|due| due.part.scheduled), row.scheduled);
        prop_assert_eq!(sum(&|due| due.part.sent), row.sent);
        prop_assert_eq!(sum(&|due| due.part.unsent), row.unsent);
        prop_assert_eq!(sum(&|due| due.part.acked), row.acked);
        prop_assert_eq!(sum(&|due| counted(&due.part.refused)), row.refused);
        prop_assert_eq!(sum(&|due| counted(&due.part.unconfirmed)), row.unconfirmed);
        prop_assert_eq!(sum(&|due| due.part.late.count()), row.sent);
        prop_assert_eq!(sum(&|due| due.part.ack.count()), row.acked);

        // The sequences of a due-second are those from its first on: every unconfirmed one lies in its second.
        let mut firsts: BTreeMap<Second, u64> = BTreeMap::new();
        let mut sent: BTreeMap<Second, u64> = BTreeMap::new();
        for due in &bench.seconds {
            prop_assert!(!due.part.warmup);
            if let Some(first) = due.part.first_sequence {
                prop_assert!(firsts.insert(due.second, first).is_none(), "told once");
            }
            *sent.entry(due.second).or_default() += due.part.sent;
        }
        let mut next = 0;
        for (second, count) in sent.iter().filter(|(_, count)| **count > 0) {
            prop_assert_eq!(firsts.get(second), Some(&next));
            next += count;
        }
        for due in &bench.seconds {
            for range in &due.part.unconfirmed {
                let first = firsts.get(&due.second).copied().unwrap_or(u64::MAX);
                prop_assert!(range.first >= first && range.last < first + sent[&due.second]);
            }
        }
    }
}

/// What is due in warm-up is stamped so and counted apart, to the message, also in the second in which it ends; its
/// lateness spoils no second.
#[test]
fn warm_up_ends_within_a_second() {
    let mut bench = Bench::new(1, 10);
    bench.up(true);
    let _ = bench.drive();
    bench.start(&ScheduleSpec {
        warmup: Duration::from_millis(1_250),
        ..spec(Rate::PerSecond(100.0), None, Some(Duration::from_secs(2)))
    });
    bench.wire.borrow_mut().takes = 1000;
    // Half of them far too late.
    bench.pass(1_000);
    for _ in 0..100 {
        bench.pass(10);
    }
    bench.step(Step::Report);
    assert_eq!((bench.wire.borrow().written, bench.wire.borrow().warm), (200, 125));
    let sum = |warmup: bool, of: &dyn Fn(&DueSecond) -> u64| {
        let parts = bench.seconds.iter().filter(|due| due.part.warmup == warmup);
        parts.map(of).sum::<u64>()
    };
    assert_eq!(
        (sum(true, &|due| due.part.sent), sum(false, &|due| due.part.sent)),
        (125, 75)
    );
    assert_eq!(sum(false, &|due| due.part.late.count()), 75);
    assert!(sum(true, &|due| due.extreme) > 80);
    let accounts = bench
        .seconds
        .iter()
        .filter(|due| due.part.warmup)
        .map(flush::Account::of);
    assert!(accounts.into_iter().all(|account| account == flush::Account::default()));
}

/// While the connection takes everything, lateness is all of the way to the socket; while it does not, only the way to
/// being ready is ours.
#[test]
fn late_is_ours_and_blocked_is_theirs() {
    let mut bench = Bench::new(0, 100);
    bench.up(true);
    let _ = bench.drive();
    bench.start(&spec(Rate::PerSecond(10.0), Some(2), None));
    bench.wire.borrow_mut().takes = 1;
    bench.pass(3);
    bench.pass(102);
    let _ = bench.drive();
    bench.now += 900 * MS;
    bench.wire.borrow_mut().now = bench.now;
    bench.wire.borrow_mut().takes = 1;
    let _ = bench.drive();
    bench.step(Step::Report);
    let late: Vec<i64> = bench.seconds.iter().flat_map(|due| due.part.late.max()).collect();
    // The first came due at 0 and was sent 3 ms later; the second came due at 100, was ready at 105, was sent 900 ms later.
    assert_eq!(bench.device.account.row().sent, 2);
    let longest = late.into_iter().max().unwrap();
    assert!((4_900_000..5_100_000).contains(&longest), "{longest}");
}

/// A process that was away finds all that came due: sent late where there is room, in more than one turn if need be.
#[test]
fn an_absence_of_our_own_makes_nothing_unsent() {
    let mut bench = Bench::new(0, 10);
    bench.up(true);
    let _ = bench.drive();
    bench.start(&spec(Rate::PerSecond(100.0), None, Some(Duration::from_secs(2))));
    bench.wire.borrow_mut().takes = 1000;
    bench.pass(2_000);
    let row = bench.device.account.row();
    assert_eq!((row.scheduled, row.sent, row.unsent), (200, 200, 0));
    bench.step(Step::Report);
    assert!(bench.seconds.iter().map(|due| due.extreme).sum::<u64>() > 180);
}

/// A device that never connected says its last word all the same, and all it had is unsent.
#[test]
fn a_device_without_a_connection_ends() {
    let mut bench = Bench::new(1, 5);
    bench.start(&spec(Rate::PerSecond(100.0), Some(20), None));
    bench.run_out();
    let row = bench.device.account.row();
    assert!(row.ended);
    assert_eq!((row.scheduled, row.unsent, row.sent), (20, 20, 0));
}
