use std::ffi::OsString;

use isochrone_daemon::{
    Health, Metrics, Stop,
    clock::SystemClock,
    settings::{Loaded, Source, load},
};
use isochrone_model::{schedule::Schedule, time::Reference};
use isochrone_store::{
    memory::MemoryStore,
    types::{Role, RunState},
};

use super::*;

/// The devices of the producer with this ordinal under these settings.
fn plan(ordinal: u32, variables: &[(&str, &str)]) -> Plan {
    let pairs = variables
        .iter()
        .map(|(name, text)| (OsString::from(name), OsString::from(text)));
    let Loaded { common, settings, .. } = load::<ProducerSettings>(&Source::from_variables(pairs)).unwrap();
    let clock = SystemClock::alone(None);
    let run = RunRecord {
        run: "run".parse().unwrap(),
        pins: common.pins(),
        state: RunState::Open,
        opened_at: Reference(0),
        closed_at: None,
        keep: Duration::ZERO,
        restored: false,
    };
    let shared = isochrone_daemon::Shared {
        common: Arc::new(common),
        store: MemoryStore::new(clock.clone()),
        clock,
        health: Health::new("test"),
        metrics: Metrics::new(),
    };
    let context = Context::new(Role::Producer, &shared, Stop::new());
    let transport = isochrone_transport::open("memory:plan").unwrap();
    Plan::new(&context, &settings, &*transport, &run, ordinal).unwrap()
}

/// When the first messages of each device are due, and what seeds its payloads, by device name.
fn drawn(plan: &Plan) -> Vec<(String, Vec<u64>, u64)> {
    let drawn = plan.devices.iter().map(|device| {
        let Planned { seed, index, .. } = *device;
        let slots = Schedule::new(&plan.shared.schedule, seed, index, plan.shared.devices);
        let due = slots.take(20).map(|slot| slot.at_ns).collect();
        let payload = device.publisher.as_ref().unwrap().device.seed;
        (device.registration.device.clone(), due, payload)
    });
    let mut drawn: Vec<_> = drawn.collect();
    drawn.sort();
    drawn
}

/// Under one seed every device of every producer draws its own times, and the same ones in the next run.
#[tokio::test]
async fn devices_of_two_producers_draw_their_own_times() {
    for schedule in ["poisson", "jitter(50%)"] {
        let variables = [
            ("ISOCHRONE_SEED", "7"),
            ("ISOCHRONE_DEVICES", "3"),
            ("ISOCHRONE_SCHEDULE", schedule),
        ];
        let (first, second) = (drawn(&plan(0, &variables)), drawn(&plan(1, &variables)));
        assert_eq!(first, drawn(&plan(0, &variables)), "same seed, same times");
        let mut due: Vec<_> = first.iter().chain(&second).map(|(_, due, _)| due.clone()).collect();
        due.sort();
        due.dedup();
        assert_eq!(due.len(), 6, "{schedule}");
        let other = [("ISOCHRONE_SEED", "8"), variables[1], variables[2]];
        assert!(
            drawn(&plan(0, &other))
                .iter()
                .zip(&first)
                .all(|(ours, theirs)| ours.1 != theirs.1)
        );
    }
}
