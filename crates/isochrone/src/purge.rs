//! Deletes a run from the store, and the sessions a crash left at the broker.

use std::{cell::RefCell, collections::BTreeSet, future::poll_fn, rc::Rc, sync::Arc, time::Duration};

use isochrone_consumer::client_ids;
use isochrone_daemon::{clock::SystemClock, settings::All};
use isochrone_model::id::Partition;
use isochrone_producer::connection;
use isochrone_store::{
    Error, Store,
    types::{Role, RunRecord, RunState},
};
use isochrone_transport::{
    Clean, ConnectionConfig, Deliveries, Delivery, SubscribeEvent, Subscriber, SubscriberConfig, Transport, Worker,
};
use tokio::time::timeout;

/// How long one session's removal may take.
const STEP: Duration = Duration::from_secs(5);

/// Deletes the run's keys after its sessions, and says what was done.
///
/// # Errors
/// The store's. Sessions that cannot be reached are told, not an error.
pub async fn purge(store: &dyn Store, run: &RunRecord, all: &All) -> Result<String, Error> {
    if run.state != RunState::Closed {
        tracing::warn!(run = %run.run, "the run is not closed; daemons that still serve it will stop");
    }
    let consumers: Vec<_> = store
        .roster(&run.run)
        .await?
        .into_iter()
        .filter(|member| member.role == Role::Consumer)
        .map(|member| member.daemon)
        .collect();
    let mut devices = Vec::new();
    for partition in 0..run.pins.partitions {
        devices.extend(store.devices(&run.run, Partition(partition)).await?);
    }
    let mut sessions: BTreeSet<(String, String)> = BTreeSet::new();
    let mut configs = Vec::new();
    for state in &devices {
        let device = &state.device;
        let (producer, n) = device.device.rsplit_once('-').unwrap_or(("", &device.device));
        let values = [
            ("run", run.run.as_str()),
            ("device", device.device.as_str()),
            ("producer", producer),
            ("n", n),
            ("topic", device.topic.as_str()),
        ];
        let Ok(own) = connection(&all.producer, &values) else {
            continue;
        };
        let mut ids = client_ids(&run.run, run.pins.partitions, &consumers, device);
        ids.push(own.client_id.clone());
        for client_id in ids {
            if sessions.insert((device.url.clone(), client_id.clone())) {
                configs.push((
                    device.url.clone(),
                    ConnectionConfig {
                        client_id,
                        ..own.clone()
                    },
                ));
            }
        }
    }
    let wanted = configs.len();
    let removed = remove_all(configs).await;
    store.purge(&run.run).await?;
    let devices = devices.len();
    Ok(format!(
        "purged run {}: {devices} devices, {removed} of {wanted} broker sessions removed",
        run.run
    ))
}

async fn remove_all(configs: Vec<(String, ConnectionConfig)>) -> usize {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_or(0, |runtime| runtime.block_on(remove_one_by_one(configs)))
    });
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    thread.join().unwrap_or(0)
}

async fn remove_one_by_one(configs: Vec<(String, ConnectionConfig)>) -> usize {
    let clock = SystemClock::new(None);
    let domain = clock.domain();
    let worker = Worker {
        clock,
        domain,
        read_buffer: Rc::new(RefCell::new(vec![0; 4096])),
    };
    let mut transport: Option<(String, Arc<dyn Transport>)> = None;
    let mut removed = 0;
    for (url, config) in configs {
        if transport.as_ref().is_none_or(|(open, _)| *open != url) {
            transport = isochrone_transport::open(&url).ok().map(|opened| (url, opened));
        }
        let Some((_, opened)) = &transport else { continue };
        let connection = ConnectionConfig {
            session_expiry: Duration::ZERO,
            clear_session: false,
            ..config
        };
        let config = SubscriberConfig {
            connection,
            qos: 0,
            acknowledge_at_once: true,
        };
        match opened.subscriber(config, &worker) {
            Ok(mut subscriber) => removed += usize::from(remove(&mut *subscriber).await),
            Err(error) => tracing::warn!("failed to {error}"),
        }
    }
    removed
}

/// A connection with a clean session is the removal of the old one.
async fn remove(subscriber: &mut dyn Subscriber) -> bool {
    let mut seen = Seen::default();
    let connected = timeout(
        STEP,
        poll_fn(|context| {
            let _ = subscriber.poll(context, &mut seen);
            if seen.connected || seen.failed {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        }),
    );
    let connected = connected.await.is_ok() && seen.connected;
    subscriber.close(Clean::RemoveSession);
    let _ = timeout(STEP, poll_fn(|context| subscriber.poll(context, &mut seen))).await;
    connected
}

#[derive(Default)]
struct Seen {
    connected: bool,
    failed: bool,
}

impl Deliveries for Seen {
    fn message(&mut self, _: Delivery<'_>) {}

    fn event(&mut self, event: SubscribeEvent) {
        match event {
            SubscribeEvent::Connected(_) => self.connected = true,
            SubscribeEvent::Disconnected(trouble) => {
                tracing::warn!("{}", trouble.detail);
                self.failed = true;
            }
            _ => {}
        }
    }
}
