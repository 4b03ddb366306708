//! The facts of each second, saved a minute a field, the older ones only in the hash.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    time::Second,
    verdict::SecondFacts,
    window::codec::{load_minute, minute},
};

/// Seconds in one field of the hash.
pub const GROUP: i64 = 60;
/// Minutes kept in memory once they are saved.
const KEPT_MINUTES: i64 = 10;

/// Facts are additive, so what a minute gains after it left the memory goes to a further field: `s:<minute>`,
/// `s:<minute>:1`, `s:<minute>:2`… A load adds them up, and the next save makes one of them.
#[derive(Clone, Debug, Default)]
pub struct Seconds {
    facts: BTreeMap<Second, SecondFacts>,
    changed: BTreeSet<i64>,
    /// Minute → which of its fields is written next; none means the first.
    field: BTreeMap<i64, u32>,
    /// Fields to be emptied with the next save of their minute.
    surplus: BTreeMap<i64, BTreeSet<u32>>,
}

impl Seconds {
    pub fn all(&self) -> &BTreeMap<Second, SecondFacts> {
        &self.facts
    }

    /// A copy of these seconds' facts alone.
    pub fn since(&self, first: Second) -> Seconds {
        let facts = self.facts.range(first..);
        Seconds {
            facts: facts.map(|(second, facts)| (*second, facts.clone())).collect(),
            ..Seconds::default()
        }
    }

    pub fn facts_mut(&mut self, second: Second) -> &mut SecondFacts {
        self.changed.insert(second.0.div_euclid(GROUP));
        self.facts.entry(second).or_default()
    }

    pub fn save(&mut self, fields: &mut Vec<(String, Vec<u8>)>) {
        for at in std::mem::take(&mut self.changed) {
            let group = Second(at * GROUP)..Second((at + 1) * GROUP);
            let field = self.field.get(&at).copied().unwrap_or(0);
            fields.push((name(at, field), minute(Second(at * GROUP), self.facts.range(group))));
            for surplus in self.surplus.remove(&at).unwrap_or_default() {
                fields.push((name(at, surplus), Vec::new()));
            }
        }
        let Some((newest, _)) = self.facts.last_key_value() else {
            return;
        };
        let keep = newest.0.div_euclid(GROUP) - KEPT_MINUTES;
        while let Some(entry) = self.facts.first_entry() {
            let at = entry.key().0.div_euclid(GROUP);
            if at >= keep {
                break;
            }
            self.facts = self.facts.split_off(&Second((at + 1) * GROUP));
            *self.field.entry(at).or_default() += 1;
        }
    }

    /// `field` without its prefix.
    pub fn load(&mut self, field: &str, bytes: &[u8]) -> Option<()> {
        let (at, field) = field.split_once(':').unwrap_or((field, "0"));
        let (at, field): (i64, u32) = (at.parse().ok()?, field.parse().ok()?);
        at.checked_mul(GROUP)?.checked_add(GROUP)?;
        if bytes.is_empty() {
            return Some(());
        }
        for (second, facts) in load_minute(bytes, Second(at * GROUP))? {
            self.facts.entry(second).or_default().merge(&facts);
        }
        if field > 0 {
            self.surplus.entry(at).or_default().insert(field);
            self.changed.insert(at);
        }
        Some(())
    }
}

fn name(minute: i64, field: u32) -> String {
    if field == 0 {
        format!("s:{minute}")
    } else {
        format!("s:{minute}:{field}")
    }
}
