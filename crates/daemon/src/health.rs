//! Whether the daemon is ready, part by part.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Readiness, as `/readyz` tells it. A process with several parts is ready when all are. Clones are the same part.
#[derive(Clone, Debug)]
pub struct Health {
    part: &'static str,
    parts: Arc<Mutex<BTreeMap<&'static str, Readiness>>>,
}

#[derive(Clone, Debug)]
struct Readiness {
    ready: bool,
    why: String,
}

impl Health {
    /// A process whose first part is not ready yet.
    pub fn new(part: &'static str) -> Health {
        Health {
            part,
            parts: Arc::default(),
        }
        .also(part)
    }

    /// Another part of the same process, not ready yet.
    pub fn part(&self, part: &'static str) -> Health {
        Health {
            part,
            parts: self.parts.clone(),
        }
        .also(part)
    }

    /// Says whether this part is ready, and why: `claims 3 topics`, `waits for the store at localhost:6379`.
    pub fn set_ready(&self, ready: bool, why: &str) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let readiness = parts.entry(self.part).or_insert_with(|| Readiness {
            ready,
            why: String::new(),
        });
        readiness.ready = ready;
        if readiness.why != why {
            why.clone_into(&mut readiness.why);
        }
    }

    /// All parts are ready; and a line about each.
    pub fn readiness(&self) -> (bool, String) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = parts.iter().map(|(part, readiness)| {
            let state = if readiness.ready { "ready" } else { "not ready" };
            format!("{part} {state}: {}\n", readiness.why)
        });
        (parts.values().all(|readiness| readiness.ready), lines.collect())
    }

    fn also(self, part: &'static str) -> Health {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.entry(part).or_insert_with(|| Readiness {
            ready: false,
            why: "starting".to_owned(),
        });
        drop(parts);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process is ready when all its parts are, and says why it is not.
    #[test]
    fn all_parts_must_be_ready() {
        let producer = Health::new("producer");
        let consumer = producer.part("consumer");
        assert!(!producer.readiness().0);
        producer.set_ready(true, "sends");
        assert_eq!(
            consumer.readiness(),
            (
                false,
                "consumer not ready: starting\nproducer ready: sends\n".to_owned()
            )
        );
        consumer.set_ready(true, "listens");
        assert!(producer.readiness().0);
    }
}
