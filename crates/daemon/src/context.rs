//! What every part of a daemon is given.

use std::{fmt, sync::Arc};

use isochrone_model::id::{DaemonId, Domain};
use isochrone_store::{
    Store,
    types::{Pins, Role, SCHEMA},
};

use crate::{Health, Metrics, Stop, Tasks, clock::SystemClock, settings::Common};

/// One life of one daemon and what it stands on.
#[derive(Clone)]
pub struct Context {
    /// This life.
    pub daemon: DaemonId,
    /// What it does.
    pub role: Role,
    /// Settings of every daemon.
    pub common: Arc<Common>,
    /// Where the runs' state lives.
    pub store: Arc<dyn Store>,
    /// The host's clock.
    pub clock: Arc<SystemClock>,
    /// The host's clock domain.
    pub domain: Domain,
    /// Tells it to stop.
    pub stop: Stop,
    /// Tells others whether it is ready.
    pub health: Health,
    /// Its own metrics.
    pub metrics: Metrics,
    /// Its tasks by name.
    pub tasks: Tasks,
}

/// What several daemons of one process share.
#[derive(Clone)]
pub struct Shared {
    /// Settings of every daemon.
    pub common: Arc<Common>,
    /// Where the runs' state lives.
    pub store: Arc<dyn Store>,
    /// The host's clock.
    pub clock: Arc<SystemClock>,
    /// Readiness of the process.
    pub health: Health,
    /// Metrics of the process.
    pub metrics: Metrics,
}

impl Common {
    /// What this daemon will work with in a run.
    pub fn pins(&self) -> Pins {
        Pins {
            schema: SCHEMA,
            partitions: self.partitions,
            claim_unit: self.claim_unit.as_str().to_owned(),
        }
    }
}

impl Context {
    /// A new life of a daemon in this process. `stop` may be shared by several, or each has its own.
    pub fn new(role: Role, shared: &Shared, stop: Stop) -> Context {
        Context {
            daemon: DaemonId(rand::random()),
            role,
            common: shared.common.clone(),
            store: shared.store.clone(),
            clock: shared.clock.clone(),
            domain: shared.clock.domain(),
            health: shared.health.part(role.as_str()),
            metrics: shared.metrics.clone(),
            tasks: Tasks::new(stop.clone()),
            stop,
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("daemon", &self.daemon)
            .field("role", &self.role)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
