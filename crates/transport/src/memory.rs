//! `memory:NAME`: a hub in this process, with the sessions and acknowledgements of a broker and nothing on a wire.
//!
//! Messages between one publisher and one subscriber keep their order. A subscriber that does not keep up holds its
//! publishers back; a session without subscriber keeps what fits (QoS > 0) and drops what comes then. Sessions do not expire
//! by time.

mod hub;
mod publisher;
mod subscriber;

use std::sync::Arc;

use crate::{
    Error, Publisher, PublisherConfig, Subscriber, SubscriberConfig, Transport, Worker,
    memory::{hub::Hub, publisher::MemoryPublisher, subscriber::MemorySubscriber},
};

/// One hub.
pub(crate) struct Memory {
    url: String,
    hub: Arc<Hub>,
}

impl Memory {
    /// The hub of this name; it lives as long as something holds it.
    pub fn open(name: &str) -> Memory {
        Memory {
            url: format!("memory:{name}"),
            hub: Hub::named(name),
        }
    }
}

impl Transport for Memory {
    fn url(&self) -> &str {
        &self.url
    }

    fn publisher(&self, config: PublisherConfig, worker: &Worker) -> Result<Box<dyn Publisher>, Error> {
        Ok(Box::new(MemoryPublisher::new(self.hub.clone(), config, worker)))
    }

    fn subscriber(&self, config: SubscriberConfig, worker: &Worker) -> Result<Box<dyn Subscriber>, Error> {
        Ok(Box::new(MemorySubscriber::new(self.hub.clone(), config, worker)))
    }
}
