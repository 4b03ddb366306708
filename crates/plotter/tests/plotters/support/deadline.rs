//! Waiting for a condition, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// No condition takes longer, or something is broken.
pub const SOON: Duration = Duration::from_secs(60);

/// A deadline that says what it waited for.
pub struct Deadline(Instant, &'static str);

impl Deadline {
    pub fn new(what: &'static str) -> Deadline {
        Deadline::within(SOON, what)
    }

    pub fn within(time: Duration, what: &'static str) -> Deadline {
        Deadline(Instant::now() + time, what)
    }

    /// Waits a moment, or fails.
    pub async fn moment(&self) {
        assert!(Instant::now() < self.0, "still waiting for: {}", self.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
