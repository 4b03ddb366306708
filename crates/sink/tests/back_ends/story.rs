//! Cuts as a plotter makes them, without a store.

use std::{collections::BTreeMap, sync::Arc};

use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch, Partition, RunName, Topic},
    row::Device,
    time::{Reference, Second},
    window::{CutEntry, Totals, windows_of_cut},
};
use isochrone_sink::{Cut, Delivery, Error, Hold, Sink};

/// One partition of one run, for one sink.
pub struct Story<'a> {
    sink: &'a dyn Sink,
    pub run: RunName,
    pub partition: Partition,
    totals: Totals,
    number: u64,
    /// Everything the sink wanted kept.
    pub kept: BTreeMap<String, Vec<u8>>,
}

impl<'a> Story<'a> {
    /// Takes a partition that nobody held before.
    pub fn new(sink: &'a dyn Sink, run: &str, partition: u16) -> Story<'a> {
        let (run, partition) = (run.parse::<RunName>().unwrap(), Partition(partition));
        sink.recall(&run, partition, &[]);
        Story {
            sink,
            run,
            partition,
            totals: Totals::new(),
            number: 0,
            kept: BTreeMap::new(),
        }
    }

    /// The same partition under another plotter's sink, as the store has it.
    pub fn moved<'b>(&self, sink: &'b dyn Sink) -> Story<'b> {
        let kept: Vec<_> = self.kept.clone().into_iter().collect();
        sink.recall(&self.run, self.partition, &kept);
        Story {
            sink,
            run: self.run.clone(),
            partition: self.partition,
            totals: self.totals.clone(),
            number: self.number,
            kept: self.kept.clone(),
        }
    }

    /// The next cut: what was sent and received at `second`, by topic its transits.
    pub fn cut(&mut self, second: i64, topics: &[(&str, &[i64])]) -> Arc<Cut> {
        let mut entries = Vec::new();
        for (place, (topic, transits)) in topics.iter().enumerate() {
            let epoch = self.totals.topics().len() as u64 * 100 + place as u64;
            self.totals.know_device(&device(topic, epoch));
            entries.push(sends(epoch, second, transits.len() as u64));
            entries.push(receipt(topic, epoch, second, transits));
        }
        entries.iter().for_each(|entry| self.totals.apply(entry));
        let fields = self.sink.keep(&self.run, self.partition, Second(second), &self.totals);
        self.kept.extend(fields);
        self.number += 1;
        let samples = topics
            .iter()
            .map(|(topic, transits)| (Topic::from(*topic), transits.len() as u64));
        Arc::new(Cut {
            run: self.run.clone(),
            partition: self.partition,
            number: self.number,
            second: Second(second),
            windows: windows_of_cut(&entries, self.totals.devices()),
            entries,
            totals: Arc::new(self.totals.clone()),
            samples: samples.collect(),
            hold: Hold::new(|| true),
        })
    }

    /// Makes the next cut and delivers it.
    pub async fn deliver(&mut self, second: i64, topics: &[(&str, &[i64])]) -> Result<Vec<Delivery>, Error> {
        let cut = self.cut(second, topics);
        self.sink.deliver(&[cut]).await
    }
}

/// A second that servers take for recent.
#[expect(
    clippy::disallowed_methods,
    reason = "servers refuse what is far from their own clock"
)]
pub fn recent() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs() as i64 - 60
}

fn device(topic: &str, epoch: u64) -> Device {
    Device {
        epoch: Epoch(epoch),
        device: format!("d{epoch}"),
        client_id: String::new(),
        topic: Topic::from(topic),
        response_topic: Topic::from(topic),
        url: "mqtts://localhost:8883".to_owned(),
        qos: 1,
        mqtt_version: "5".to_owned(),
        rate: Some(1.0),
        domain: Domain(1),
        producer: DaemonId(1),
    }
}

fn receipt(topic: &str, epoch: u64, second: i64, transits: &[i64]) -> CutEntry {
    let due = Second(second).start();
    let sample = |(sequence, transit): (usize, &i64)| Sample {
        epoch: Epoch(epoch),
        sequence: sequence as u64,
        due,
        sent: due,
        received: Reference(due.0 + transit),
        transit_ns: *transit,
        delay: ConsumerDelay::None,
        warmup: false,
    };
    let part = ReceiptPart {
        samples: transits.iter().enumerate().map(sample).collect(),
        duplicates: 1,
        ..ReceiptPart::default()
    };
    let head = ReceiptHead {
        daemon: DaemonId(2),
        domain: Domain(1),
        bound_ns: 0,
        era_changed: false,
        ack_limited: false,
        absences: Vec::new(),
    };
    CutEntry::Receipt {
        second: Second(second),
        head,
        parts: vec![(Topic::from(topic), part)],
    }
}

fn sends(epoch: u64, second: i64, count: u64) -> CutEntry {
    let mut late = Histogram::default();
    late.record_n(20_000, count);
    let part = SendPart {
        epoch: Epoch(epoch),
        scheduled: count,
        sent: count,
        acked: count,
        late: late.clone(),
        ack: late,
        ..SendPart::default()
    };
    let head = SendHead {
        daemon: DaemonId(1),
        domain: Domain(1),
        messages: count,
        late: 0,
        extreme: 0,
        bound_ns: 0,
        era_changed: false,
    };
    CutEntry::Send {
        second: Second(second),
        head,
        parts: vec![part],
    }
}
