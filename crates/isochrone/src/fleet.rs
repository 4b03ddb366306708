//! The main job in one process: an embedded broker and store where no real one is named, and the three daemons on them.

use std::{
    error::Error,
    fmt::Display,
    future::{Future, pending},
    ops::Range,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{
    Cause, Context, Health, Metrics, Shared, Stop, chassis,
    clock::discipline,
    page,
    settings::{All, Source, WaitForConsumer, without_secrets},
};
use isochrone_model::{
    report::{Report, RunFacts},
    template::Template,
    time::{Clock, Reference},
};
use isochrone_store::{
    Store,
    run::name_at,
    types::{OpenRun, Role, RunRecord},
};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    broker::Broker,
    cli::Format,
    facts::{Wanted, gather},
    length::Length,
    live::{Live, awaited},
    runs,
    share::share,
    tasks::conclude,
    text::count,
};

/// What the end of a run may take beside the drain: last cuts, and a large fleet's disconnects.
const SETTLE: Duration = Duration::from_secs(60);

/// What is appended to the time that names a run whose store no one else sees.
const LONE_RUN: Range<u32> = 1_000..10_000;

/// How often is looked whether anything has been connected.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the fleet and prints the report; gives the exit code.
///
/// # Errors
/// What failed, fitting after "failed to".
pub async fn run(mut all: All, source: &Source, format: Format, wanted: Wanted) -> Result<u8, Box<dyn Error>> {
    let broker = if source.is_set("broker") {
        None
    } else {
        // The consumer has one session a partition, and devices may share a response topic.
        let of_each_device = |template: &Template| ["device", "n", "topic"].iter().any(|name| template.uses(name));
        let topics = match &all.producer.response_topic {
            Some(template) if !of_each_device(template) => 1,
            _ => u16::try_from(all.producer.devices).unwrap_or(u16::MAX),
        };
        Some(Broker::start(topics.min(all.common.partitions), all.producer.qos).await?)
    };
    share(&mut all, source);
    if let Some(broker) = &broker {
        all.producer.broker = broker.url();
    }
    let (clock, store) = chassis::open_store(&all.common)?;
    let own_store = all.common.redis_url.iter().any(|url| url.starts_with("memory:"));
    if all.common.run.is_none() && own_store && broker.is_none() {
        // Client ids and topics hold the run's name, and other programs with stores of their own may begin in the same second.
        let begun = clock.offset().at(clock.monotonic());
        all.common.run = Some(name_at(begun, rand::random_range(LONE_RUN))?);
    }
    let request = OpenRun {
        run: all.common.run.clone(),
        pins: all.common.pins(),
        keep: all.common.keep,
    };
    let run = store.open_run(&request).await?;
    all.common.run = Some(run.run.clone());
    let (health, metrics) = (Health::new("isochrone"), Metrics::new());
    page::serve(all.common.listen, Role::Plotter, &health, &metrics)?;
    health.set_ready(true, "works");
    let shared = Shared {
        common: Arc::new(all.common.clone()),
        store: store.clone(),
        clock,
        health,
        metrics,
    };

    // Producers stop first; consumers and plotter go on until what was sent is accounted for.
    let (sending, measuring) = (Stop::new(), Stop::new());
    let producer = Context::new(Role::Producer, &shared, sending.clone());
    let consumer = Context::new(Role::Consumer, &shared, measuring.clone());
    let plotter = Context::new(Role::Plotter, &shared, measuring.clone());
    chassis::handle_signals(&sending, &producer.tasks, all.common.shutdown)?;
    discipline::start(
        &shared.clock,
        &shared.store,
        &shared.metrics,
        &plotter.tasks,
        &measuring,
    );
    let length = Length::of(&all.producer);
    let places = Places {
        broker: broker.is_none().then_some(all.producer.broker.as_str()),
        store: (!own_store).then(|| all.common.redis_url.join(",")),
    };
    banner(&all, &run, length, &places);

    let watching = Live {
        store: store.clone(),
        clock: shared.clock.clone(),
        run: run.run.clone(),
        length,
    };
    let watching = tokio::spawn(watching.watch());
    let mut parts = Parts::start(measuring, consumer, plotter, &all);
    let sent = isochrone_producer::run(producer, all.producer.clone(), None);
    let interrupted = {
        let unreachable = never_connected(&*store, &run, all.producer.wait_for_consumer, &all.producer.broker);
        let mut sent = pin!(send(sent, &mut parts, unreachable, &sending));
        tokio::select! {
            biased;
            at = when_told_to_stop(&sending, &*shared.clock) => {
                sent.await;
                Some(at)
            }
            // A signal from here on finds nothing left to send.
            () = &mut sent => None,
        }
    };
    // A failure stops the sending, too.
    let interrupted = interrupted.filter(|_| sending.cause() == Cause::Asked);
    let run = if sending.is_finishing() && sending.cause() != Cause::Asked {
        run
    } else {
        let closed = timeout(all.common.drain * 4 + SETTLE, runs::closed(&*store, &run));
        tokio::select! {
            closed = closed => match closed.ok().transpose() {
                Ok(closed) => closed.unwrap_or(run),
                Err(error) => {
                    sending.fail(error.to_string());
                    run
                }
            },
            what = parts.failure() => {
                sending.fail(what);
                run
            }
            () = sending.aborting() => run,
        }
    };
    parts.finish(all.common.shutdown, &sending).await;
    watching.abort();
    let facts = gather(&*store, &run, &wanted).await.map(|mut facts| {
        if let Some(at) = interrupted {
            length.tell_interruption(at, &mut facts);
        }
        facts
    });
    match sending.cause() {
        Cause::Asked => Ok(end(&facts?, format, own_store)),
        cause => {
            // What was measured until then is worth having.
            if let Some(facts) = facts.ok().filter(has_sent) {
                end(&facts, format, own_store);
            }
            match cause {
                Cause::Failed(what) => Err(what.into()),
                Cause::TooSlow => Err(too_slow(all.common.shutdown).into()),
                Cause::Interrupted | Cause::Asked => Ok(chassis::INTERRUPTED),
            }
        }
    }
}

/// Sends until the devices are done, or until something fails: then they finish early, and `sending` has the cause.
async fn send<T, E: Display>(
    sent: impl Future<Output = Result<T, E>>,
    parts: &mut Parts,
    unreachable: impl Future<Output = String>,
    sending: &Stop,
) {
    let mut sent = Box::pin(sent);
    let failure = async {
        tokio::select! {
            what = parts.failure() => what,
            what = unreachable => what,
        }
    };
    let outcome = tokio::select! {
        outcome = &mut sent => outcome,
        what = failure => {
            sending.fail(what);
            tokio::select! {
                outcome = &mut sent => outcome,
                () = sending.aborting() => return,
            }
        }
        () = sending.aborting() => return,
    };
    if let Err(error) = outcome {
        sending.fail(error.to_string());
    }
}

/// What to say when neither consumer nor device has ever been connected for as long as a topic is waited for; does not return
/// otherwise. A run that never began would not end either.
async fn never_connected(store: &dyn Store, run: &RunRecord, patience: WaitForConsumer, broker: &str) -> String {
    let WaitForConsumer::AtMost(patience) = patience else {
        return pending().await;
    };
    let broker = without_secrets(broker);
    tokio::time::sleep(patience).await;
    loop {
        if let Ok(facts) = gather(store, run, &Wanted::default()).await {
            let connects = Report::build(&facts).connects;
            if connects.phases.contains_key("connack") {
                return pending().await;
            }
            if let Some((reason, times)) = connects.failed.iter().max_by_key(|(_, times)| **times) {
                return format!(
                    "connect to {broker} within {patience:?}: {reason} ({} times)",
                    count(*times)
                );
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the fleet is told to stop, and gives the time of that; does not return otherwise.
async fn when_told_to_stop(sending: &Stop, clock: &dyn Clock) -> Reference {
    sending.finishing().await;
    clock.reference()
}

/// Prints the report, and says what sinks have not had and what becomes of it.
fn end(facts: &RunFacts, format: Format, own_store: bool) -> u8 {
    let code = conclude(facts, format);
    let fate = if own_store {
        "they are gone with this process's store"
    } else {
        "a plotter that serves every run delivers them as long as the run is kept"
    };
    for (sink, pending) in awaited::pending(facts) {
        eprintln!(
            "isochrone: {sink} did not receive {} samples (pending): {fate}",
            count(pending)
        );
    }
    code
}

fn has_sent(facts: &RunFacts) -> bool {
    facts.devices.iter().any(|(_, row)| row.sent > 0)
}

fn too_slow(shutdown: Duration) -> String {
    format!("finish within ISOCHRONE_SHUTDOWN={shutdown:?}; what was under way is dropped")
}

/// What measures: consumer and plotter. Dropped, they end.
struct Parts {
    measuring: Stop,
    running: JoinSet<Result<(), String>>,
}

impl Parts {
    fn start(measuring: Stop, consumer: Context, plotter: Context, all: &All) -> Parts {
        let mut running = JoinSet::new();
        let (of_consumer, of_plotter) = (all.consumer.clone(), all.plotter.clone());
        running.spawn(async move {
            let ended = isochrone_consumer::run(consumer, of_consumer, None).await;
            ended.map(drop).map_err(|error| error.to_string())
        });
        running.spawn(async move {
            let ended = isochrone_plotter::run(plotter, of_plotter).await;
            ended.map_err(|error| error.to_string())
        });
        Parts { measuring, running }
    }

    /// What the next one to fail says, fitting after "failed to"; `None` when the others have ended as they should.
    async fn next_failure(&mut self) -> Option<String> {
        while let Some(ended) = self.running.join_next().await {
            match (ended, self.measuring.cause()) {
                (Err(error), _) => return Some(format!("keep consumer and plotter running: {error}")),
                (Ok(Err(what)), _) | (Ok(Ok(())), Cause::Failed(what)) => return Some(what),
                // Told to, or the run is closed.
                (Ok(Ok(())), _) => {}
            }
        }
        None
    }

    /// The same while nothing is to end; does not return otherwise.
    async fn failure(&mut self) -> String {
        match self.next_failure().await {
            Some(what) => what,
            None => std::future::pending().await,
        }
    }

    /// Lets them write what they have. What goes wrong is left in `sending`.
    async fn finish(&mut self, shutdown: Duration, sending: &Stop) {
        self.measuring.finish();
        let finish = async {
            while let Some(what) = self.next_failure().await {
                sending.fail(what);
            }
        };
        tokio::select! {
            ended = timeout(shutdown, finish) => {
                if ended.is_err() {
                    sending.fail(too_slow(shutdown));
                }
            }
            () = sending.aborting() => {}
        }
    }
}

/// Broker and store, where they are not this process's own.
struct Places<'a> {
    broker: Option<&'a str>,
    store: Option<String>,
}

fn banner(all: &All, run: &RunRecord, length: Length, places: &Places<'_>) {
    let producer = &all.producer;
    let place = |url: Option<&str>| url.map_or_else(|| "embedded".to_owned(), without_secrets);
    let (broker, store) = (place(places.broker), place(places.store.as_deref()));
    let total = match producer.schedule_spec().per_second() {
        Some(rate) => format!(
            "{} msg/s each, {} msg/s in all",
            rate,
            rate * f64::from(producer.devices)
        ),
        None => "as fast as it goes".to_owned(),
    };
    eprintln!(
        "run {}: {} devices, {total}, QoS {}, MQTT {}, {length}; broker {broker}, store {store}",
        run.run, producer.devices, producer.qos, producer.mqtt_version
    );
}
