//! What the devices of one process share: it holds the whole fleet, and load beyond the machine's power must not take memory by
//! the device.

use isochrone_daemon::settings::{ProducerSettings, Source};

/// Places that may wait to be sent, and messages that may await the embedded broker's acknowledgement, of all devices
/// together.
const QUEUED: usize = 200_000;
const IN_FLIGHT: usize = 20_000;

/// What a device gets of them at least: with less it could not send in bursts. Beyond 2,000 devices all together therefore get
/// more.
const QUEUED_AT_LEAST: usize = 100;
const IN_FLIGHT_AT_LEAST: usize = 10;

/// Gives each device its share of what all may hold, where the setting does not say how much: never more than the setting's
/// default.
pub fn share(producer: &mut ProducerSettings, source: &Source) {
    let devices = producer.devices.max(1) as usize;
    let part = |of_all: usize, floor: usize, most: usize| (of_all / devices).max(floor).min(most);
    if !source.is_set("queue") {
        producer.queue = part(QUEUED, QUEUED_AT_LEAST, producer.queue);
    }
    if !source.is_set("in_flight") && !source.is_set("broker") {
        producer.in_flight = Some(part(IN_FLIGHT, IN_FLIGHT_AT_LEAST, producer.in_flight()));
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
            share(&mut producer, &source);
            assert_eq!((producer.queue, producer.in_flight()), (queue, in_flight), "{set:?}");
        }
    }
}
