//! The embedded broker: what the fleet talks to when ISOCHRONE_BROKER is not set.

use std::{net::SocketAddr, thread::JoinHandle, time::Duration};

use mqtt5::broker::{
    BrokerConfig, BrokerShutdownHandle, MqttBroker,
    config::{StorageBackend, StorageConfig},
};
use tokio::sync::oneshot;

/// Messages of QoS 1 and 2 on their way to subscribers, for all of them together; beyond it the broker answers publishers later,
/// so that what they may have in flight (`share`) is the next bound.
/// At about 1 KiB each they are a great part of what a run beyond the machine's power takes of memory.
const ON_THEIR_WAY: usize = 20_000;

/// Messages that may wait in the broker, for all subscribers together, beyond which it drops, which the ledger shows: those of
/// QoS 0, whose publishers nobody answers, and others for subscribers that take nothing for two seconds.
const WAITING: usize = 50_000;

/// Deliveries that may await acknowledgement, of all subscribers together: far above what one read holds, so that the
/// broker's window is not what a run measures; the broker goes through a subscriber's with every acknowledgement.
const OUTBOUND_IN_FLIGHT: u16 = 10_000;

/// How long the broker gets to close its connections.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// A broker on a loopback port of its own, in threads of its own.
pub struct Broker {
    address: SocketAddr,
    shutdown: BrokerShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

/// The embedded broker did not start.
#[derive(Debug, thiserror::Error)]
#[error("start the embedded broker: {0}")]
pub struct Error(String);

impl Broker {
    /// Starts it and waits until it listens, for messages of this QoS. That many subscribers share what may wait in it.
    pub async fn start(subscribers: u16, qos: u8) -> Result<Broker, Error> {
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || serve(config(subscribers, qos), sender))
            .map_err(|error| Error(error.to_string()))?;
        let (address, shutdown) = receiver.await.map_err(|_| Error("it ended at once".to_owned()))??;
        Ok(Broker {
            address,
            shutdown,
            thread: Some(thread),
        })
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shutdown.shutdown();
        if let Some(thread) = self.thread.take() {
            // A panic in the broker's thread has been reported by then; there is nothing to add to it.
            let _ = thread.join();
        }
    }
}

type Started = Result<(SocketAddr, BrokerShutdownHandle), Error>;

fn serve(config: BrokerConfig, started: oneshot::Sender<Started>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("broker")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(Error(error.to_string())));
            return;
        }
    };
    runtime.block_on(run(config, started));
    runtime.shutdown_timeout(SHUTDOWN);
}

async fn run(config: BrokerConfig, started: oneshot::Sender<Started>) {
    let mut broker = match MqttBroker::with_config(config).await {
        Ok(broker) => broker,
        Err(error) => {
            let _ = started.send(Err(Error(error.to_string())));
            return;
        }
    };
    let Some(address) = broker.local_addr() else {
        let _ = started.send(Err(Error("it has no address".to_owned())));
        return;
    };
    let _ = started.send(Ok((address, broker.shutdown_handle())));
    if let Err(error) = broker.run().await {
        tracing::error!(%error, "the embedded broker ended");
    }
}

fn config(subscribers: u16, qos: u8) -> BrokerConfig {
    // Of more than a hundred, few have much waiting at a time.
    let share = subscribers.clamp(1, 100);
    BrokerConfig {
        client_channel_capacity: match qos {
            0 => WAITING / usize::from(share),
            _ => ON_THEIR_WAY / usize::from(share),
        },
        bind_addresses: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        max_clients: 1_000_000,
        max_outbound_inflight: OUTBOUND_IN_FLIGHT / share,
        sys_topics_enabled: false,
        storage_config: StorageConfig::default()
            .with_backend(StorageBackend::Memory)
            .with_persistence(false)
            .with_max_queued_messages_per_client(WAITING / usize::from(share)),
        ..BrokerConfig::default()
    }
}
