//! Payload templates.

/// Where the stamp travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampPlace {
    /// As text in the payload.
    Text,
    /// As bytes in the payload.
    Bytes,
    /// In a message property or header named `isochrone`.
    Property,
}

/// A compiled payload template.
#[derive(Debug)]
pub struct Payload {}

/// What varies a payload between devices.
#[derive(Clone, Debug)]
pub struct DeviceSeed {
    /// The device's name.
    pub device: std::sync::Arc<str>,
    /// The run's name.
    pub run: std::sync::Arc<str>,
    /// ISOCHRONE_SEED mixed with the device's name.
    pub seed: u64,
}
