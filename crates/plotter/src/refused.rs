//! What cannot be worked on is said once, not with every look at it.

use std::collections::BTreeMap;

use isochrone_model::id::{Partition, RunName};
use isochrone_store::Error;
use tracing::error;

/// Why runs, and partitions of them, cannot be worked on, as it was last said.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<(RunName, Option<Partition>), String>);

impl Refused {
    /// Says why a partition, or without one a run, cannot be worked on, unless that was said of it last.
    pub fn say(&mut self, run: &RunName, partition: Option<Partition>, error: &Error) {
        let why = format!("failed to {error}");
        if !self.is_news(run, partition, &why) {
            return;
        }
        match partition {
            Some(partition) => error!(%run, %partition, "{why}"),
            None => error!(%run, "{why}"),
        }
    }

    /// Keeps what was said of these runs only.
    pub fn retain(&mut self, is_there: impl Fn(&RunName) -> bool) {
        self.0.retain(|(run, _), _| is_there(run));
    }

    fn is_news(&mut self, run: &RunName, partition: Option<Partition>, why: &str) -> bool {
        let before = self.0.insert((run.clone(), partition), why.to_owned());
        before.as_deref() != Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reason is news once, also when others of the same run come between; another one is news again.
    #[test]
    fn reasons_do_not_take_turns() {
        let run: RunName = "r".parse().unwrap();
        let mut refused = Refused::default();
        let mut news = |partition, why| refused.is_news(&run, partition, why);
        let (first, second) = (Some(Partition(1)), Some(Partition(2)));
        assert!(news(first, "one") && news(second, "two") && news(None, "all"));
        assert!(!news(first, "one") && !news(second, "two") && !news(None, "all"));
        assert!(news(second, "three") && !news(first, "one"));
        refused.retain(|_| false);
        assert!(
            refused.is_news(&run, first, "one"),
            "a run of this name is another one now"
        );
    }
}
