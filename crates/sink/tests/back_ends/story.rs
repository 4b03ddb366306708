//! Cuts as a plotter makes them, without a store.

use std::{collections::BTreeMap, sync::Arc};

use isochrone_model::{
    id::{Partition, RunName, Topic},
    time::Second,
    window::{Totals, windows_of_cut},
};
use isochrone_sink::{Cut, Delivery, Error, Hold, Sink};

use crate::entries::{device, receipt, sends};

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
            entries.push(receipt(topic, epoch, second, 0, transits));
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
