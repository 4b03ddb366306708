//! What must outlive a plotter so that no counter falls: stored beside the cumulative state, in the same step.

use std::collections::BTreeMap;

use isochrone_model::{
    time::Second,
    verdict::{Reason, SecondFacts, verdict},
};

/// Field of the topics shown by name and of those that are not.
pub const TOPICS: &str = "topics";
/// Field of the counted seconds.
pub const SECONDS: &str = "seconds";

/// A second is counted when it is this much older than a cut: late samples and losses (grace, drain, a flush) have come by
/// then, and a counter cannot take a verdict back.
const SETTLED_S: i64 = 10;

/// Seconds by their verdict within one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The last second counted.
    to: Option<Second>,
    /// In the order of [`Reason::ALL`].
    pub counts: [u64; Reason::ALL.len()],
}

impl Verdicts {
    /// Counts what has settled by a cut at `second`; true when that was anything.
    pub fn settle(&mut self, seconds: &BTreeMap<Second, SecondFacts>, second: Second) -> bool {
        self.count(seconds, second - SETTLED_S)
    }

    /// Counts all: the run is closed.
    pub fn finish(&mut self, seconds: &BTreeMap<Second, SecondFacts>) {
        self.count(seconds, Second(i64::MAX));
    }

    fn count(&mut self, seconds: &BTreeMap<Second, SecondFacts>, to: Second) -> bool {
        let before = *self;
        for (second, facts) in seconds.range(..=to) {
            if self.to.is_some_and(|counted| *second <= counted) {
                continue;
            }
            self.to = Some(*second);
            if !facts.is_warmup() {
                self.counts[verdict(facts).worst as usize] += 1;
            }
        }
        *self != before
    }

    /// As stored.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 * (1 + self.counts.len()));
        out.extend(self.to.map_or(i64::MIN, |second| second.0).to_be_bytes());
        for count in self.counts {
            out.extend(count.to_be_bytes());
        }
        out
    }

    /// From what was stored; nothing counted when that cannot be read.
    pub fn unpack(bytes: &[u8]) -> Verdicts {
        let mut words = bytes.as_chunks::<8>().0.iter().copied();
        let to = words
            .next()
            .map(i64::from_be_bytes)
            .filter(|second| *second != i64::MIN)
            .map(Second);
        let mut counts = [0; Reason::ALL.len()];
        for (count, word) in counts.iter_mut().zip(words) {
            *count = u64::from_be_bytes(word);
        }
        Verdicts { to, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored comes back.
    #[test]
    fn survives_storage() {
        let verdicts = Verdicts {
            to: Some(Second(7)),
            counts: [1, 2, 3, 4, 5, 6],
        };
        assert_eq!(Verdicts::unpack(&verdicts.pack()), verdicts);
        assert_eq!(Verdicts::unpack(&Verdicts::default().pack()), Verdicts::default());
    }

    /// Each second is counted once, when it has settled, the rest at the end.
    #[test]
    fn counts_each_second_once() {
        let seconds: BTreeMap<_, _> = (0..30).map(|second| (Second(second), SecondFacts::default())).collect();
        let mut verdicts = Verdicts::default();
        for second in 0..30 {
            verdicts.settle(&seconds, Second(second));
        }
        assert_eq!(verdicts.counts[0], 20);
        verdicts.finish(&seconds);
        verdicts.finish(&seconds);
        assert_eq!(verdicts.counts[0], 30);
    }
}
