//! Ways to reach a system under test: one file and one cargo feature per scheme, opened by URL.
//!
//! [`contract`] says what a transport promises.

pub mod connection;
pub mod contract;
mod error;
mod memory;
#[cfg(feature = "mqtt")]
mod mqtt;
mod open;

pub use connection::{Clean, ConnectionConfig, MqttVersion, TlsConfig, Worker};
pub use contract::{
    Connected, Deliveries, Delivery, DeliveryId, Disconnected, Offer, PublishEvent, Publisher, PublisherConfig,
    SubscribeEvent, Subscriber, SubscriberConfig, Transport,
};
pub use error::Error;
pub use open::open;
