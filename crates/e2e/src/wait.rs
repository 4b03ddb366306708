//! Waiting for a condition with a deadline.

use std::{
    fmt::Debug,
    thread::sleep,
    time::{Duration, Instant},
};

/// Between two looks.
const POLL: Duration = Duration::from_millis(25);

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
        sleep(POLL);
    }
}

/// Polls `value` until it equals `expected` or `deadline` has passed.
///
/// # Panics
/// With `what` and the last value when it never did.
pub fn until_equal<T: PartialEq + Debug>(what: &str, expected: T, deadline: Duration, mut value: impl FnMut() -> T) {
    let begun = now();
    loop {
        let last = value();
        if last == expected {
            return;
        }
        assert!(
            begun.elapsed() < deadline,
            "{what} is {last:?} after {deadline:?}, not {expected:?}"
        );
        sleep(POLL);
    }
}

/// Lets `duration` pass: a fault that is to last, work that is to go on.
pub fn pause(duration: Duration) {
    sleep(duration);
}

/// The test's own clock.
#[expect(clippy::disallowed_methods, reason = "deadlines of tests")]
pub fn now() -> Instant {
    Instant::now()
}
