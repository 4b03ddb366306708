//! What the devices of one process share: it holds the whole fleet, and load beyond the machine's power must not take memory by
//! the device.

use isochrone_daemon::settings::{All, ProducerSettings, Source, declarations};

/// Places that may wait to be sent, and messages that may await the embedded broker's acknowledgement, of all devices
/// together.
const QUEUED: usize = 200_000;
const IN_FLIGHT: usize = 20_000;

/// What a device gets of them at least: with less it could not send in bursts. Beyond 2,000 devices all together therefore get
/// more.
const QUEUED_AT_LEAST: usize = 100;
const IN_FLIGHT_AT_LEAST: usize = 10;

/// Gives each device its share of what all may hold, where the setting does not say how much: never more than the setting's
/// default. What is then used is also what is shown.
pub fn share(all: &mut All, source: &Source) {
    divide(&mut all.producer, source);
    let (queue, in_flight) = (all.producer.queue, all.producer.in_flight());
    show(all, source, "queue", queue);
    show(all, source, "in_flight", in_flight);
}

fn divide(producer: &mut ProducerSettings, source: &Source) {
    let devices = producer.devices.max(1) as usize;
    let part = |of_all: usize, floor: usize, most: usize| (of_all / devices).max(floor).min(most);
    if !source.is_set("queue") {
        producer.queue = part(QUEUED, QUEUED_AT_LEAST, producer.queue);
    }
    if !source.is_set("in_flight") && !source.is_set("broker") {
        producer.in_flight = Some(part(IN_FLIGHT, IN_FLIGHT_AT_LEAST, producer.in_flight()));
    }
}

fn show(all: &mut All, source: &Source, field: &str, used: usize) {
    let declaration = declarations().iter().find(|declaration| declaration.field == field);
    let Some(variable) = declaration.map(|declaration| declaration.variable()) else {
        return;
    };
    if source.is_set(field) {
        return;
    }
    for one in all.effective.iter_mut().filter(|one| one.variable == variable) {
        one.text = Some(used.to_string());
        one.origin = format!("default with {} devices", all.producer.devices);
    }
}

#[cfg(test)]
mod tests {
    use isochrone_daemon::settings::load;

    use super::*;

    /// A row for each: what is set; places in a device's queue; messages in flight.
    #[test]
    fn devices_share() {
        for (set, queue, in_flight) in [
            (&[("devices", "1")][..], 10_000, 1_000),
            (&[("devices", "20")], 10_000, 1_000),
            (&[("devices", "200")], 1_000, 100),
            (&[("devices", "2000")], 100, 10),
            (&[("devices", "100000")], 100, 10),
            (&[("devices", "1"), ("qos", "2")], 10_000, 20),
            (&[("devices", "100000"), ("qos", "2")], 100, 10),
            (&[("devices", "2000"), ("queue", "7"), ("in_flight", "900")], 7, 900),
            (&[("devices", "2000"), ("broker", "mqtt://localhost:1883")], 100, 1_000),
        ] {
            let source = Source::from_variables([]).flags(set.iter().copied());
            let mut producer = load::<ProducerSettings>(&source).unwrap().settings;
            divide(&mut producer, &source);
            assert_eq!((producer.queue, producer.in_flight()), (queue, in_flight), "{set:?}");
        }
    }
}
