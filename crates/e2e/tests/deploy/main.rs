//! What is deployed, tried for real: the Compose file and the Swarm stack on a Docker engine, the chart against the schemas
//! of Kubernetes. Run one test at a time (`--test-threads=1`): each is a fleet of its own.

#![expect(clippy::expect_used, reason = "tests")]

mod chart;
mod compose;
mod swarm;

use std::{thread::sleep, time::Duration};

use isochrone_e2e::wait;

/// As [`wait::until`], but each look starts programs in containers: not too often on a busy machine.
fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait::until(what, deadline, || {
        let holds = condition();
        if !holds {
            sleep(Duration::from_secs(3));
        }
        holds
    });
}
