//! A model check of the claim protocol: three consumers contend for two topics while they crash, pause and lose
//! answers, and the store is away or forgets its last second. Each takes one topic, or whoever is first the whole
//! partition.
//!
//! The server is the partition's own state machine, the contenders use the lease observer: what is checked is what runs.
//! One tick is a second. The lease is three; each tick a live consumer renews and looks at the others' leases, then
//! evicts, claims and gets ready; the steps of all consumers interleave in every order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isochrone_model::{
    id::{DaemonId, Domain, Epoch, Partition as PartitionId, Token, Topic},
    row::{Device, SendRow},
    time::{Monotonic, NANOS_PER_SECOND, Reference},
};
use isochrone_store::{
    lease::Observer,
    partition::Partition,
    types::{ClaimEnd, DeviceState, GivenBack, Left, Pins, ReceiptFlush, SCHEMA, TopicSave, WHOLE_PARTITIONS},
};
use stateright::{Checker, Model, Property};

const LEASE: u64 = 3;
/// The longest outage: longer than a lease and its margin.
const OUTAGE: u64 = LEASE + 2;
const HERE: PartitionId = PartitionId(0);
const PRODUCER: DaemonId = DaemonId(9);

/// The protocol, and ways to break it that the check must notice.
#[derive(Clone)]
struct Protocol {
    /// How many seconds a holder works after a renewal.
    held: u64,
    /// Tokens are at least the time.
    tokens_follow_time: bool,
    /// Consumers take whole partitions, and what the store's partition is told of that.
    whole: bool,
    told_whole: bool,
    faults: u8,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct State {
    now: u64,
    server: Partition,
    /// The server at the beginning of this second and of the one before, while a rollback may come.
    past: Option<Box<[Partition; 2]>>,
    /// Counts rollbacks.
    life: u8,
    /// How many seconds the server has been away, if it is.
    away: Option<u64>,
    faults: u8,
    /// Seconds since the last fault.
    quiet: u64,
    consumers: [Consumer; 3],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Consumer {
    id: DaemonId,
    crashed: bool,
    paused: bool,
    step: Step,
    /// What it believes to hold.
    claims: BTreeMap<Topic, Token>,
    /// What a renewal brought that it did not know.
    unknown: Vec<(Topic, Token)>,
    /// What it once held and holds no more.
    stale: Vec<(Topic, Token)>,
    /// It may work under its claims before this second, and since which rollback it knows that.
    valid: (u64, u8),
    observer: Observer,
    dead: Vec<(PartitionId, DaemonId, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Renew,
    Claim,
    Done,
}

/// What becomes of a step's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Answered,
    /// They are done, and nobody hears of it.
    AnswerLost,
    Unreached,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Step(usize, Fate),
    Crash(usize),
    Pause(usize),
    Resume(usize),
    GoAway,
    ComeBack,
    RollBack,
}

impl Protocol {
    fn pins(&self) -> Pins {
        let claim_unit = if self.told_whole { WHOLE_PARTITIONS } else { "topic" };
        Pins {
            schema: SCHEMA,
            partitions: 1,
            claim_unit: claim_unit.to_owned(),
        }
    }

    /// How many topics a consumer takes.
    fn room(&self) -> usize {
        if self.whole { topics().len() } else { 1 }
    }

    /// Seconds after the last fault within which every topic must be held again: to see the fault, a lease and its margin
    /// to observe, and one more for each topic that one consumer claims.
    fn settled(&self) -> u64 {
        LEASE + 3 + self.room() as u64
    }

    /// A topic is free and it could have it.
    fn idles(&self, consumer: &Consumer) -> bool {
        consumer.runs() && (self.whole || consumer.claims.is_empty())
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut server = Partition::new(&self.pins());
        server.register(PRODUCER, &[device(1), device(2)], Reference(0));
        let consumer = |id| Consumer {
            id: DaemonId(id),
            crashed: false,
            paused: false,
            step: Step::Renew,
            claims: BTreeMap::new(),
            unknown: Vec::new(),
            stale: Vec::new(),
            valid: (0, 0),
            observer: Observer::new(Duration::from_secs(LEASE)),
            dead: Vec::new(),
        };
        vec![State {
            now: 1,
            past: Some(Box::new([server.clone(), server.clone()])),
            server,
            life: 0,
            away: None,
            faults: self.faults,
            // The first fault comes while the first claims are made, or in the two seconds after.
            quiet: self.settled() - 1,
            consumers: [consumer(1), consumer(2), consumer(3)],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in state.turns() {
            match (state.away, state.faults) {
                (Some(_), _) => actions.push(Action::Step(index, Fate::Unreached)),
                (None, 0) => actions.push(Action::Step(index, Fate::Answered)),
                (None, _) => {
                    let fates = [Fate::Answered, Fate::AnswerLost, Fate::Unreached];
                    actions.extend(fates.map(|fate| Action::Step(index, fate)));
                }
            }
            // Before its turn is as good as at any time since its last.
            if state.faults > 0 {
                actions.extend([Action::Crash(index), Action::Pause(index)]);
            }
        }
        let running = || state.consumers.iter().filter(|consumer| consumer.runs());
        let all_at = |step: Step| running().all(|consumer| consumer.step == step);
        if all_at(Step::Done) && state.away.is_none_or(|seconds| seconds < OUTAGE) {
            actions.push(Action::Tick);
        }
        if all_at(Step::Done) || all_at(Step::Claim) {
            let paused = state
                .consumers
                .iter()
                .enumerate()
                .filter(|(_, consumer)| consumer.paused);
            actions.extend(paused.map(|(index, _)| Action::Resume(index)));
            match (state.away, state.faults) {
                (Some(_), _) => actions.push(Action::ComeBack),
                (None, 1..) => actions.extend([Action::GoAway, Action::RollBack]),
                (None, 0) => {}
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Tick => state.tick(),
            Action::Step(consumer, fate) => {
                if before.away.is_none() && fate != Fate::Answered {
                    state.fault();
                }
                state.step(consumer, fate, self);
            }
            Action::Crash(index) => {
                state.fault();
                state.consumers[index].crashed = true;
            }
            Action::Pause(index) => {
                state.fault();
                state.consumers[index].paused = true;
            }
            Action::Resume(index) => {
                state.consumers[index].paused = false;
                state.quiet = 0;
            }
            Action::GoAway => {
                state.fault();
                state.away = Some(0);
            }
            Action::ComeBack => {
                state.away = None;
                state.quiet = 0;
            }
            Action::RollBack => {
                let past = state.past.clone()?;
                state.fault();
                state.life += 1;
                state.server = past[0].clone();
                state.past = (state.faults > 0).then(|| Box::new([past[0].clone(), past[0].clone()]));
                for consumer in &mut state.consumers {
                    let server = &state.server;
                    // What it gave up within the forgotten second it holds again, until its next renewal.
                    consumer
                        .stale
                        .retain(|(topic, token)| server.holder(topic) != Some((consumer.id, *token)));
                }
            }
        }
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        // What has been quiet for so long goes on like that: a fault then is like one before.
        state.quiet <= self.settled()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "never two holders whose writes are accepted",
                |_: &Protocol, state: &State| topics().iter().all(|topic| state.writers(topic) <= 1),
            ),
            Property::always(
                "never two holders within their leases",
                |_: &Protocol, state: &State| topics().iter().all(|topic| state.working(topic) <= 1),
            ),
            Property::always(
                "no write under an earlier claim is accepted",
                |_: &Protocol, state: &State| {
                    state.consumers.iter().all(|consumer| {
                        let mut stale = consumer.stale.iter();
                        stale.all(|(topic, token)| !accepts(&state.server, consumer.id, topic, *token))
                    })
                },
            ),
            Property::always(
                "no topic stays free beside a consumer with room",
                |protocol: &Protocol, state: &State| {
                    let rest = state.consumers.iter().all(|c| c.crashed || c.step == Step::Done);
                    let settled = state.quiet >= protocol.settled() && rest;
                    !settled || !state.consumers.iter().any(|c| protocol.idles(c)) || state.all_held()
                },
            ),
            Property::always(
                "never two holders in a whole partition",
                |protocol: &Protocol, state: &State| {
                    let holders: BTreeSet<DaemonId> = topics()
                        .iter()
                        .filter_map(|topic| Some(state.server.holder(topic)?.0))
                        .collect();
                    !protocol.whole || holders.len() <= 1
                },
            ),
            Property::sometimes("a topic is taken over", |protocol: &Protocol, state: &State| {
                let crashed = |id| {
                    state
                        .consumers
                        .iter()
                        .any(|consumer| consumer.id == id && consumer.crashed)
                };
                let held = |consumer: &Consumer| consumer.runs() && !consumer.claims.is_empty();
                let holders = if protocol.whole { 1 } else { 2 };
                state.consumers.iter().filter(|consumer| held(consumer)).count() == holders && crashed(DaemonId(1))
            }),
        ]
    }
}

impl State {
    fn fault(&mut self) {
        self.faults -= 1;
        self.quiet = 0;
        if self.faults == 0 {
            self.past = None;
        }
    }

    /// Whose turn it may be. All renew in the order of their numbers (whichever holds a topic, another is before it and
    /// another after it), then they claim in any order.
    fn turns(&self) -> Vec<usize> {
        let at = |step: Step| {
            let consumers = self.consumers.iter().enumerate();
            consumers
                .filter(move |(_, consumer)| consumer.runs() && consumer.step == step)
                .map(|(index, _)| index)
        };
        match at(Step::Renew).next() {
            Some(first) => vec![first],
            None => at(Step::Claim).collect(),
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        self.away = self.away.map(|seconds| seconds + 1);
        // One that stays paused is like one that crashed, as far as the others are concerned.
        self.quiet = if self.away.is_some() { 0 } else { self.quiet + 1 };
        if let Some(past) = &mut self.past {
            past.swap(0, 1);
            past[1] = self.server.clone();
        }
        for consumer in &mut self.consumers {
            if consumer.runs() {
                consumer.step = Step::Renew;
            }
        }
    }

    /// The next step of one consumer.
    fn step(&mut self, index: usize, fate: Fate, protocol: &Protocol) {
        let now = self.now;
        let monotonic = Monotonic(now * NANOS_PER_SECOND as u64);
        let at = if protocol.tokens_follow_time {
            Reference(monotonic.0 as i64)
        } else {
            Reference(0)
        };
        let valid = (now + protocol.held, self.life);
        let (server, consumer) = (&mut self.server, &mut self.consumers[index]);
        match consumer.step {
            Step::Renew => {
                consumer.step = Step::Claim;
                let renewed = (fate != Fate::Unreached).then(|| server.renew(consumer.id, at));
                let Some(renewed) = renewed.filter(|_| fate == Fate::Answered) else {
                    consumer.dead = consumer.observer.see(monotonic, monotonic, None);
                    return;
                };
                consumer.learn(renewed, valid);
                let others = server
                    .leases()
                    .filter(|(daemon, _)| *daemon != consumer.id && *daemon != PRODUCER);
                let rows: Vec<_> = others.map(|(daemon, counter)| (HERE, daemon, counter)).collect();
                consumer.dead = consumer.observer.see(monotonic, monotonic, Some(&rows));
                let full = consumer.claims.len() == protocol.room();
                if full && consumer.dead.is_empty() && consumer.unknown.is_empty() {
                    consumer.step = Step::Done;
                }
            }
            Step::Claim => {
                consumer.step = Step::Done;
                let dead = std::mem::take(&mut consumer.dead);
                let unknown = std::mem::take(&mut consumer.unknown);
                if fate == Fate::Unreached {
                    return;
                }
                for (_, daemon, counter) in dead {
                    server.evict(daemon, counter, at);
                }
                if consumer.claims.len() < protocol.room() {
                    // One at a time: topics of a partition are registered one after the other, too.
                    let mut claimed = server.claim(consumer.id, 0, at);
                    if claimed.is_empty() {
                        claimed = server.claim(consumer.id, 1, at);
                    }
                    if fate == Fate::AnswerLost {
                        return;
                    }
                    for claim in claimed {
                        server.ready(consumer.id, &[(claim.topic.clone(), claim.token)], at);
                        consumer.claims.insert(claim.topic, claim.token);
                        consumer.valid = valid;
                    }
                }
                // What it neither knew nor got by claiming again is nothing it listens to.
                let foreign = unknown
                    .into_iter()
                    .filter(|(topic, token)| consumer.claims.get(topic) != Some(token));
                let back: Vec<_> = foreign
                    .map(|(topic, token)| GivenBack {
                        topic,
                        token,
                        end: ClaimEnd::Free,
                    })
                    .collect();
                server.give_back(consumer.id, &back, Left::GivenBack { session: true }, at);
            }
            Step::Done => {}
        }
    }

    /// Consumers that believe to hold the topic and whose writes the server takes.
    fn writers(&self, topic: &Topic) -> usize {
        let accepted = |consumer: &&Consumer| {
            let token = consumer.claims.get(topic);
            !consumer.crashed && token.is_some_and(|token| accepts(&self.server, consumer.id, topic, *token))
        };
        self.consumers.iter().filter(accepted).count()
    }

    /// Consumers that work under a claim on the topic: within the lease, as far as they can know.
    fn working(&self, topic: &Topic) -> usize {
        let works = |consumer: &&Consumer| {
            let (until, life) = consumer.valid;
            !consumer.crashed && self.now < until && life == self.life && consumer.claims.contains_key(topic)
        };
        self.consumers.iter().filter(works).count()
    }

    fn all_held(&self) -> bool {
        topics().iter().all(|topic| {
            let knows = |consumer: &Consumer, token| consumer.claims.get(topic) == Some(&token);
            let holder = self.server.holder(topic);
            holder.is_some_and(|(daemon, token)| {
                self.consumers
                    .iter()
                    .any(|consumer| consumer.id == daemon && consumer.runs() && knows(consumer, token))
            })
        })
    }
}

impl Consumer {
    fn runs(&self) -> bool {
        !self.crashed && !self.paused
    }

    fn learn(&mut self, renewed: Option<Vec<(Topic, Token)>>, valid: (u64, u8)) {
        self.valid = valid;
        let held = renewed.unwrap_or_default();
        let before = std::mem::take(&mut self.claims);
        for (topic, token) in before {
            if held.contains(&(topic.clone(), token)) {
                self.claims.insert(topic, token);
            } else {
                self.stale.push((topic, token));
            }
        }
        self.unknown = held
            .into_iter()
            .filter(|(topic, token)| self.claims.get(topic) != Some(token))
            .collect();
    }
}

fn accepts(server: &Partition, daemon: DaemonId, topic: &Topic, token: Token) -> bool {
    let save = TopicSave {
        topic: topic.clone(),
        token,
        total_before: 0,
        state: bytes::Bytes::new(),
    };
    let flush = ReceiptFlush {
        batch: 1,
        entries: Vec::new(),
        states: vec![save],
    };
    server.clone().append(daemon, &flush, Reference(0)).fenced.is_empty()
}

fn topics() -> [Topic; 2] {
    [Topic::from("1"), Topic::from("2")]
}

fn device(epoch: u64) -> DeviceState {
    let topic = Topic::from(epoch.to_string().as_str());
    let device = Device {
        epoch: Epoch(epoch),
        device: String::new(),
        client_id: String::new(),
        topic: topic.clone(),
        response_topic: topic,
        url: String::new(),
        qos: 0,
        mqtt_version: String::new(),
        rate: None,
        domain: Domain(0),
        producer: PRODUCER,
        ordinal: 0,
        number: 0,
    };
    DeviceState {
        device,
        row: SendRow::default(),
    }
}

fn check(protocol: Protocol) -> impl Checker<Protocol> {
    let checked = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} of them different",
        checked.state_count(),
        checked.unique_state_count()
    );
    checked
}

fn protocol() -> Protocol {
    Protocol {
        held: LEASE,
        tokens_follow_time: true,
        whole: false,
        told_whole: false,
        faults: 2,
    }
}

/// Whatever two faults come, and in whatever order everything else happens.
#[test]
fn the_protocol_holds() {
    check(protocol()).assert_properties();
}

/// The same for whole partitions.
#[test]
fn whole_partitions_hold() {
    check(Protocol {
        whole: true,
        told_whole: true,
        ..protocol()
    })
    .assert_properties();
}

/// Consumers that only mean to take whole partitions race for their topics.
#[test]
fn a_shared_partition_is_noticed() {
    let checked = check(Protocol {
        whole: true,
        faults: 1,
        ..protocol()
    });
    checked.assert_any_discovery("never two holders in a whole partition");
}

/// A holder that works for longer than contenders observe works beside its successor.
#[test]
fn a_lease_held_too_long_is_noticed() {
    let checked = check(Protocol {
        held: 2 * LEASE,
        faults: 1,
        ..protocol()
    });
    checked.assert_any_discovery("never two holders within their leases");
}

/// Tokens that only count repeat after a rollback.
#[test]
fn tokens_that_repeat_are_noticed() {
    let checked = check(Protocol {
        tokens_follow_time: false,
        faults: 1,
        ..protocol()
    });
    checked.assert_any_discovery("no write under an earlier claim is accepted");
}
