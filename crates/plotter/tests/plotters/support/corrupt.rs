//! A run of which one partition cannot be read.

use isochrone_daemon::clock::SystemClock;
use isochrone_model::id::Partition;

use super::{Server, World};

/// The run and its store. The partition is the first of all that have topics, so that the others come after it.
pub struct Corrupt {
    pub world: World,
    pub partition: Partition,
    server: Server,
    stream: String,
}

impl Corrupt {
    /// What a plotter that meets it must name: the id of the entry that it cannot read.
    pub const ENTRY: &str = "1-1";

    /// A run with that many devices on a Redis of its own.
    pub async fn new(devices: u64) -> Corrupt {
        let server = Server::start().await;
        let world = World::new(server.store(), SystemClock::alone(None), devices).await;
        let partition = *world.busy_partitions().first().unwrap();
        let stream = format!("isochrone:{{{}:{partition}}}:latency", world.run);
        let answer = server.ask(&format!("XADD {stream} {} v unheard-of", Corrupt::ENTRY));
        assert!(answer.starts_with('$'), "{answer}");
        Corrupt {
            world,
            partition,
            server,
            stream,
        }
    }

    /// Takes away what cannot be read.
    pub fn mend(&self) {
        let answer = self.server.ask(&format!("XDEL {} {}", self.stream, Corrupt::ENTRY));
        assert!(answer.starts_with(":1"), "{answer}");
    }
}
