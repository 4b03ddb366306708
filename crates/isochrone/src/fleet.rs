//! The main job in one process: an embedded broker and store where no real one is named, and the three daemons on them.

use std::{error::Error, sync::Arc, time::Duration};

use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop, chassis,
    clock::discipline,
    page,
    settings::{All, Source},
};
use isochrone_store::types::{OpenRun, Role, RunRecord};
use tokio::time::timeout;

use crate::{
    broker::Broker,
    cli::Format,
    facts::{Wanted, gather},
    live::Live,
    runs,
    tasks::conclude,
};

/// What the end of a run may take beside the drain: last cuts, and a large fleet's disconnects.
const SETTLE: Duration = Duration::from_secs(60);

/// Runs the fleet and prints the report; gives the exit code.
///
/// # Errors
/// What failed, fitting after "failed to".
pub async fn run(mut all: All, source: &Source, format: Format, wanted: Wanted) -> Result<u8, Box<dyn Error>> {
    let broker = if source.is_set("broker") {
        None
    } else {
        Some(Broker::start().await?)
    };
    if let Some(broker) = &broker {
        all.producer.broker = broker.url();
    }
    let (clock, store) = chassis::open_store(&all.common)?;
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
    banner(&all, &run, broker.is_some());

    let watching = Live {
        store: store.clone(),
        clock: shared.clock.clone(),
        run: run.run.clone(),
        duration: all.producer.duration,
    };
    let watching = tokio::spawn(watching.watch());
    let measured = tokio::spawn(isochrone_consumer::run(consumer, all.consumer.clone(), None));
    let plotted = tokio::spawn(isochrone_plotter::run(plotter, all.plotter.clone()));
    let sent = isochrone_producer::run(producer, all.producer.clone(), None);
    let outcome = tokio::select! {
        outcome = sent => outcome.map(drop).map_err(Box::<dyn Error>::from),
        () = sending.aborting() => Ok(()),
    };
    let run = if outcome.is_ok() && !sending.is_aborting() {
        tokio::select! {
            closed = timeout(all.common.drain * 4 + SETTLE, runs::closed(&*store, &run)) => closed.ok().transpose()?.unwrap_or(run),
            () = sending.aborting() => run,
        }
    } else {
        run
    };
    measuring.finish();
    if !sending.is_aborting() {
        let finish = async { (measured.await, plotted.await) };
        if let Ok((measured, plotted)) = timeout(all.common.shutdown, finish).await {
            measured??;
            plotted??;
        }
    }
    watching.abort();
    outcome?;
    let facts = gather(&*store, &run, &wanted).await?;
    let code = conclude(&facts, format);
    Ok(if sending.is_aborting() {
        chassis::INTERRUPTED
    } else {
        code
    })
}

fn banner(all: &All, run: &RunRecord, embedded: bool) {
    let producer = &all.producer;
    let place = if embedded {
        "the embedded broker".to_owned()
    } else {
        isochrone_daemon::settings::without_user(&producer.broker)
    };
    let length = producer
        .duration
        .map_or_else(|| "until stopped".to_owned(), |length| format!("for {length:?}"));
    let total = match producer.rate.per_second() {
        Some(rate) => format!(
            "{} msg/s each, {} msg/s in all",
            rate,
            rate * f64::from(producer.devices)
        ),
        None => "as fast as it goes".to_owned(),
    };
    eprintln!(
        "run {}: {} devices, {total}, QoS {}, MQTT {}, {length}, on {place}",
        run.run, producer.devices, producer.qos, producer.mqtt_version
    );
}
