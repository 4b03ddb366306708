//! Turns: what is over is worked on in the time that what is live leaves it.

use std::time::Duration;

use tokio::time::Instant;

/// How much of a round closed runs may take while others are live.
pub const CLOSED_WITHIN: Duration = Duration::from_millis(200);

/// The same while none is: so soon a run that is opened meanwhile is seen.
pub const CLOSED_ALONE: Duration = Duration::from_secs(1);

/// When to stop, if there is a time for it. What was begun is brought to its end.
#[derive(Clone, Copy, Debug)]
pub struct Until(Option<Instant>);

impl Until {
    /// Never before all is done.
    pub fn unlimited() -> Until {
        Until(None)
    }

    /// So long from now.
    pub fn within(time: Duration) -> Until {
        Until(Some(Instant::now() + time))
    }

    /// Whether it is time to stop.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|until| Instant::now() >= until)
    }
}

/// All, in their order, beginning with the first after `last`, whose turn it was last.
pub fn in_turn<T: Ord>(all: impl IntoIterator<Item = T>, last: Option<&T>) -> Vec<T> {
    let (later, mut first): (Vec<T>, Vec<T>) = all.into_iter().partition(|one| last.is_some_and(|last| one <= last));
    first.extend(later);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever was last is last again, also when it is gone.
    #[test]
    fn everyone_has_a_turn() {
        assert_eq!(in_turn([1, 3, 5], None), [1, 3, 5]);
        assert_eq!(in_turn([1, 3, 5], Some(&1)), [3, 5, 1]);
        assert_eq!(in_turn([1, 3, 5], Some(&4)), [5, 1, 3]);
        assert_eq!(in_turn([1, 3, 5], Some(&5)), [1, 3, 5]);
    }
}
