//! A consumer's work, from settings to the last claim given back.

use std::{num::NonZeroUsize, sync::Arc, thread::available_parallelism};

use isochrone_daemon::{
    Context,
    settings::{ClaimUnit, ConsumerSettings},
};
use isochrone_transport::Transport;
use tokio::runtime::Handle;

use crate::{Error, claims::Room, desk::Equipment, discover::Discovery, metrics::Counters, worker::Pool};

/// Up to so many claims one thread is plenty.
const ONE_THREAD: usize = 8;

/// Receiving threads at most: each carries some hundred thousand messages a second.
const THREADS: usize = 4;

/// Serves every run that is not closed, until the daemon finishes; with ISOCHRONE_RUN set, that run until it is closed.
///
/// `transport` is used instead of opening the URLs that devices registered. Call it on the daemon's runtime.
pub async fn run(
    context: Context,
    settings: ConsumerSettings,
    transport: Option<Arc<dyn Transport>>,
) -> Result<(), Error> {
    let settings = Arc::new(settings);
    let limit = match context.common.claim_unit {
        ClaimUnit::Topic => settings.claims,
        ClaimUnit::Partition => None,
    };
    let threads = threads(limit);
    let counters = Counters::new(&context.metrics);
    let equipment = (0..threads).map(|_| equipment(&context, &settings, threads, &transport, &counters));
    let pool = Arc::new(Pool::start(equipment.collect())?);
    let room = Arc::new(Room::new(limit));
    context.health.set_ready(true, "waits for a run");
    let discovery = Discovery::new(context.clone(), settings, pool, room);
    tokio::select! {
        outcome = Box::pin(discovery.serve()) => outcome,
        () = context.stop.aborting() => Ok(()),
    }
}

fn threads(limit: Option<usize>) -> usize {
    if limit.is_some_and(|limit| limit <= ONE_THREAD) {
        return 1;
    }
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    // Devices, broker and plotter want the other half when all of it runs in one process.
    (cores / 2).clamp(1, THREADS)
}

fn equipment(
    context: &Context,
    settings: &Arc<ConsumerSettings>,
    threads: usize,
    transport: &Option<Arc<dyn Transport>>,
    counters: &Counters,
) -> Equipment {
    let stop = context.stop.clone();
    Equipment {
        daemon: context.daemon,
        clock: context.clock.clone(),
        domain: context.domain,
        server: context.clock.clone(),
        store: context.store.clone(),
        runtime: Handle::current(),
        settings: settings.clone(),
        buffer: settings.buffer.div_ceil(threads),
        lease: context.common.lease,
        drain: context.common.drain,
        valid_late: context.common.valid_late,
        transport: transport.clone(),
        counters: counters.clone(),
        fail: Arc::new(move |what| stop.fail(what)),
    }
}
