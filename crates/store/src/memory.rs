//! A store in this process: the same state machines as the contract describes, behind mutexes.

use std::sync::Arc;

use isochrone_model::time::Clock;

/// Keeps everything in this process; what it promises is `contract`, its clock is the reference clock.
pub struct MemoryStore {
    #[expect(dead_code, reason = "being built")]
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<MemoryStore> {
        Arc::new(MemoryStore { clock })
    }

    /// The same store for another daemon in this process: it waits for announcements on its own.
    pub fn another(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore {
            clock: self.clock.clone(),
        })
    }
}
