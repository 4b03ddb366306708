//! Joining a run: roster, leases, registration, workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use isochrone_daemon::{
    Context,
    lease::LeaseKeeper,
    settings::{ProducerSettings, WaitForConsumer},
};
use isochrone_model::{
    id::{Partition, RunName},
    row::SendRow,
};
use isochrone_store::{
    Error as StoreError,
    types::{DeviceState, OpenRun, Role, RunRecord},
};
use isochrone_transport::Transport;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tracing::{debug, info};

use super::{CLOCK_WAIT, Life, NOTICES, Reach, Registered};
use crate::{
    Error,
    flush::{Author, Outbox},
    metrics::Counters,
    plan::{Plan, banner},
    run::{Patience, persist},
    waiting::Waiting,
    worker::Job,
};

/// Runs that may begin to drain while a producer joins them, one after the other.
const JOINS: u32 = 5;

/// Devices in one registration: bounds one script's time in Redis.
pub const DEVICES_AT_ONCE: usize = 500;

impl Life {
    /// Joins the wanted run (or the open one, or a new one), registers the devices and starts the workers. None when
    /// it was told to stop meanwhile.
    ///
    /// Errors: the run refuses, a setting cannot be used, no thread can be had.
    pub async fn begin(
        context: &Context,
        settings: &Arc<ProducerSettings>,
        transport: &Arc<dyn Transport>,
        counters: &Counters,
        wanted: Option<RunName>,
    ) -> Result<Option<Life>, Error> {
        let common = &context.common;
        let (store, daemon) = (&context.store, context.daemon);
        let mut request = OpenRun {
            run: wanted,
            pins: common.pins(),
            keep: common.keep,
        };
        let patience = Patience::UntilFinishing;
        let Some((record, ordinal)) = join(context, &mut request).await? else {
            return Ok(None);
        };
        let run = record.run.clone();
        request.run = Some(run.clone());
        let life = persist(context, patience, "read the store's life", || store.read(Some(&run)));
        let server_life = life.await?.map(|(_, life)| life);

        let plan = match Plan::new(context, settings, transport.as_ref(), &record, ordinal) {
            Ok(plan) => plan,
            Err(error) => {
                // Nobody should wait for a lease to run out because of a setting.
                let _ = store.discharge(&run, daemon).await;
                return Err(error);
            }
        };
        info!(%daemon, ordinal, "{}", banner(&run, settings));
        let (keeper, leases) = LeaseKeeper::start(context, &run);

        let author = Author {
            daemon,
            domain: context.domain,
        };
        let mut places: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        let mut devices = Vec::with_capacity(plan.devices.len());
        for (place, planned) in plan.devices.iter().enumerate() {
            places.entry(planned.partition).or_default().push(place);
            devices.push(Registered {
                device: planned.registration.clone(),
                partition: planned.partition,
            });
        }
        for (&partition, places) in &places {
            for some in places.chunks(DEVICES_AT_ONCE) {
                let states: Vec<DeviceState> = some
                    .iter()
                    .map(|&place| devices[place].state(SendRow::default()))
                    .collect();
                let done = persist(context, patience, "register devices", || {
                    store.register(&run, partition, daemon, &states)
                });
                if done.await?.is_none() {
                    // Told to stop half-way: what is registered never sends; the roster's row ends with this.
                    let _ = store.discharge(&run, daemon).await;
                    return Ok(None);
                }
                keeper.add(partition);
            }
        }
        debug!(devices = devices.len(), partitions = places.len(), "registered");

        let give_up = match settings.wait_for_consumer {
            WaitForConsumer::Yes => None,
            WaitForConsumer::No => Some(Instant::now()),
            WaitForConsumer::AtMost(most) => Some(Instant::now() + most),
        };
        let waiting = Waiting::new(&plan.devices, give_up);
        counters.lives.inc();
        counters.devices.set(devices.len() as f64);
        counters.waiting.set(devices.len() as f64);
        context.health.set_ready(true, "joined; waits for consumers");
        info!(%run, devices = devices.len(), "each device sends once a consumer listens for it (ISOCHRONE_WAIT_FOR_CONSUMER)");

        let outboxes = places
            .iter()
            .map(|(&partition, places)| (partition, Outbox::new(author, places.len())))
            .collect();
        let (workers, notices) = start_workers(plan, context, transport)?;
        Ok(Some(Life {
            context: context.clone(),
            flush_interval: settings.flush_interval,
            counters: Counters::new(&context.metrics),
            request,
            run,
            ordinal,
            keeper,
            leases,
            rows: vec![SendRow::default(); devices.len()],
            devices,
            places,
            outboxes,
            waiting,
            working: workers.len(),
            workers,
            notices,
            jobs: JoinSet::new(),
            flying: BTreeSet::new(),
            asking: BTreeSet::new(),
            reach: Reach::There,
            told_away: false,
            server_life,
            era: None,
            leased: true,
            lost: false,
            failure: None,
            finishing: false,
            clock_until: Instant::now() + CLOCK_WAIT,
            last_words_until: None,
        }))
    }
}

/// Opens or joins a run and enters its roster. One that begins to drain at that moment is left to itself, unless the user named
/// it: another is opened.
async fn join(context: &Context, request: &mut OpenRun) -> Result<Option<(RunRecord, u32)>, Error> {
    let (store, daemon) = (&context.store, context.daemon);
    let patience = Patience::UntilFinishing;
    for attempt in 1.. {
        let joined = async {
            let opened = persist(context, patience, "join a run", || store.open_run(request));
            let Some(record) = opened.await? else {
                return Ok(None);
            };
            context.clock.follow(&record.run);
            let enlisted = persist(context, patience, "join the run's roster", || {
                store.enlist(&record.run, daemon, Role::Producer, None)
            });
            Ok(enlisted.await?.map(|ordinal| (record, ordinal)))
        };
        match joined.await {
            Err(StoreError::Run { .. }) if context.common.run.is_none() && attempt < JOINS => request.run = None,
            joined => return Ok(joined?),
        }
    }
    Ok(None)
}

impl Registered {
    /// What the registry is told.
    pub fn state(&self, row: SendRow) -> DeviceState {
        DeviceState {
            device: self.device.clone(),
            row,
        }
    }
}

type Workers = (
    Vec<mpsc::Sender<crate::worker::Command>>,
    mpsc::Receiver<crate::worker::Notice>,
);

fn start_workers(plan: Plan, context: &Context, transport: &Arc<dyn Transport>) -> Result<Workers, Error> {
    let (sender, notices) = mpsc::channel(NOTICES);
    let workers = plan.workers;
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for (place, device) in plan.devices.into_iter().enumerate() {
        shares[place % workers].push(device);
    }
    let mut commands = Vec::with_capacity(workers);
    for (number, devices) in shares.into_iter().enumerate() {
        let job = Job {
            number,
            workers,
            devices,
            shared: plan.shared.clone(),
            transport: transport.clone(),
            clock: context.clock.clone(),
            domain: context.domain,
            notices: sender.clone(),
        };
        commands.push(job.start()?);
    }
    Ok((commands, notices))
}
