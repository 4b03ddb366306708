//! What tests of several modules are made of.

use isochrone_model::{
    id::{DaemonId, Domain, Epoch},
    row::Device,
};

/// A device in its life of this epoch.
pub fn device(epoch: u64) -> Device {
    Device {
        epoch: Epoch(epoch),
        device: "d".to_owned(),
        client_id: String::new(),
        topic: "t".into(),
        response_topic: "t".into(),
        url: "memory:".to_owned(),
        qos: 0,
        mqtt_version: "5".to_owned(),
        rate: None,
        domain: Domain(1),
        producer: DaemonId(1),
        ordinal: 0,
        number: 0,
    }
}
