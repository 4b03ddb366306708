//! Waiting for a condition with a deadline.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Polls `condition` until it holds or `deadline` has passed.
///
/// # Panics
/// With `what` when it never held.
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, deadline, || condition().then_some(()));
}

/// Polls `attempt` until it yields something or `deadline` has passed.
///
/// # Panics
/// With `what` when it never did.
pub fn until_some<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(begun.elapsed() < deadline, "waited {deadline:?} for: {what}");
        sleep(Duration::from_millis(25));
    }
}

/// The test's own clock.
#[expect(clippy::disallowed_methods, reason = "deadlines of tests")]
pub fn now() -> Instant {
    Instant::now()
}
