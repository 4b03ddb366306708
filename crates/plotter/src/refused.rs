//! What cannot be worked on is said once, not with every look at it.

use std::collections::BTreeMap;

use isochrone_model::id::{Partition, RunName};

/// Why runs, and partitions of them, cannot be worked on, as it was last said.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<(RunName, Option<Partition>), String>);

impl Refused {
    /// Whether this was not yet said of the partition, or without one of the run; it is said now.
    pub fn is_news(&mut self, run: &RunName, partition: Option<Partition>, why: &str) -> bool {
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
    }
}
