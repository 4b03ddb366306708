//! Stored entries to what the model counts.

use std::collections::BTreeMap;

use isochrone_model::{
    entry::{ReceiptHead, ReceiptPart, SendHead, SendPart},
    id::{Epoch, Topic},
    window::CutEntry,
};
use isochrone_store::types::{Entry, EntryKind};
use tracing::error;

/// One entry decoded. A part that cannot be read is left out and named in the log: the ledger will not add up, which is what
/// a damaged store must lead to, but the rest goes on.
pub fn decode(stored: &Entry) -> Option<CutEntry> {
    let entry = &stored.entry;
    let damaged = |what: &str| {
        error!(entry = ?stored.id, daemon = %stored.daemon, batch = stored.batch, what, "stored entry is damaged; left out");
    };
    match entry.kind {
        EntryKind::Receipt => {
            let Ok(head) = ReceiptHead::decode(&entry.head) else {
                damaged("head");
                return None;
            };
            let mut parts = Vec::with_capacity(entry.parts.len());
            for part in &entry.parts {
                match ReceiptPart::decode(&part.body) {
                    Ok(body) => parts.push((Topic::from(part.key.as_str()), body)),
                    Err(_) => damaged(&part.key),
                }
            }
            Some(CutEntry::Receipt {
                second: entry.second,
                head,
                parts,
            })
        }
        EntryKind::Send => {
            let Ok(head) = SendHead::decode(&entry.head) else {
                damaged("head");
                return None;
            };
            let mut parts = Vec::with_capacity(entry.parts.len());
            for part in &entry.parts {
                match SendPart::decode(&part.body) {
                    Ok(body) => parts.push(body),
                    Err(_) => damaged(&part.key),
                }
            }
            Some(CutEntry::Send {
                second: entry.second,
                head,
                parts,
            })
        }
    }
}

/// Unique samples in an entry, by response topic.
pub fn samples(entry: &CutEntry, into: &mut BTreeMap<Topic, u64>) {
    if let CutEntry::Receipt { parts, .. } = entry {
        for (topic, part) in parts {
            if !part.samples.is_empty() {
                *into.entry(topic.clone()).or_default() += part.samples.len() as u64;
            }
        }
    }
}

/// The device lives an entry speaks of.
pub fn epochs(entry: &CutEntry) -> Box<dyn Iterator<Item = Epoch> + '_> {
    match entry {
        CutEntry::Receipt { parts, .. } => Box::new(
            parts
                .iter()
                .flat_map(|(_, part)| part.samples.iter().map(|sample| sample.epoch)),
        ),
        CutEntry::Send { parts, .. } => Box::new(parts.iter().map(|part| part.epoch)),
    }
}
