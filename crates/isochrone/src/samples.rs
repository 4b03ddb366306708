//! Prints a topic's samples that are still in the store.

use std::collections::HashMap;

use isochrone_model::{
    entry::{ReceiptPart, Sample},
    id::{Epoch, Topic},
};
use isochrone_store::{
    Error, Store,
    types::{EntryId, EntryKind, RunRecord},
};
use serde_json::json;

use crate::{
    cli::Format,
    facts::utc,
    text::{nanos, plain_table},
};

/// Entries read at once.
const PAGE: usize = 200;

/// All samples of `topic`, in the order they were stored.
///
/// # Errors
/// The store's, a topic that the run does not have, or a part that cannot be read.
pub async fn print(store: &dyn Store, run: &RunRecord, topic: &Topic, format: Format) -> Result<String, Error> {
    let partition = topic.partition(run.pins.partitions);
    let topics = store.topics(&run.run, partition).await?;
    if topics.iter().all(|known| known.topic != *topic) {
        return Err(Error::Run {
            run: run.run.clone(),
            cause: format!("it has no response topic {topic}; `isochrone report --per-topic` lists those it has"),
        });
    }
    let registered = store.devices(&run.run, partition).await?;
    let devices: HashMap<Epoch, String> = registered
        .into_iter()
        .map(|state| (state.device.epoch, state.device.device))
        .collect();
    let mut samples = Vec::new();
    let mut after = EntryId::default();
    loop {
        let entries = store.entries(&run.run, partition, after, PAGE).await?;
        let Some(last) = entries.last() else { break };
        after = last.id;
        for entry in entries
            .into_iter()
            .filter(|entry| entry.entry.kind == EntryKind::Receipt)
        {
            for part in entry.entry.parts.iter().filter(|part| part.key == topic.as_str()) {
                let decoded = ReceiptPart::decode(&part.body).map_err(|error| Error::Corrupt {
                    key: format!("{topic} in entry {}-{}", entry.id.0, entry.id.1),
                    cause: error.to_string(),
                })?;
                samples.extend(decoded.samples);
            }
        }
    }
    let device = |sample: &Sample| {
        devices
            .get(&sample.epoch)
            .cloned()
            .unwrap_or_else(|| sample.epoch.to_string())
    };
    Ok(match format {
        Format::Json => samples
            .iter()
            .map(|sample| format!("{}\n", line(sample, &device(sample))))
            .collect(),
        Format::Text | Format::Svg => table(&samples, device),
    })
}

fn line(sample: &Sample, device: &str) -> serde_json::Value {
    json!({
        "device": device,
        "epoch": sample.epoch,
        "sequence": sample.sequence,
        "due": utc(sample.due),
        "due_ns": sample.due.0,
        "sent_ns": sample.sent.0,
        "received_ns": sample.received.0,
        "publish_delay_ns": sample.publish_delay_ns(),
        "transit_ns": sample.transit_ns,
        "response_ns": sample.response_ns(),
        "warmup": sample.warmup,
    })
}

fn table(samples: &[Sample], device: impl Fn(&Sample) -> String) -> String {
    let mut table = plain_table();
    table.set_header(["due", "device", "sequence", "publish delay", "transit", "response"]);
    for sample in samples {
        table.add_row([
            utc(sample.due),
            device(sample),
            sample.sequence.to_string(),
            nanos(sample.publish_delay_ns() as f64),
            nanos(sample.transit_ns as f64),
            nanos(sample.response_ns() as f64),
        ]);
    }
    format!(
        "{table}\n{} samples; those already exported to every sink are no longer in the store",
        samples.len()
    )
}
