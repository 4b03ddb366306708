//! What the sink counts beside its runner.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounter, IntCounterVec, Opts, core::Collector, proto::MetricFamily};

/// Reasons that were logged; servers have a few dozen.
const MOST_KINDS: usize = 256;

const KINDS: [&str; 2] = ["window", "sample"];
const FATES: [&str; 3] = ["created", "existed", "set_aside"];

/// The counters.
pub struct Counters {
    /// By kind and fate, in the order of the constants.
    documents: [[IntCounter; 3]; 2],
    family: IntCounterVec,
    /// Bytes of documents sent, before compression.
    pub bytes: IntCounter,
    /// Requests.
    pub bulks: IntCounter,
    /// Documents sent again.
    pub retries: IntCounter,
    kinds: Mutex<BTreeSet<String>>,
}

/// How a document ended.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It was new.
    Created,
    /// It was there already.
    Existed,
    /// It was refused for good.
    SetAside,
}

impl Counters {
    /// All zero.
    #[expect(
        clippy::expect_used,
        reason = "constant metric names, which the tests have seen accepted"
    )]
    pub fn new() -> Counters {
        let opts = Opts::new(
            "isochrone_elasticsearch_documents_total",
            "Documents by kind (sample, window) and fate (created, existed: sent again and found there, set_aside).",
        );
        let family = IntCounterVec::new(opts, &["kind", "fate"]).expect("a valid name");
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("a valid name");
        Counters {
            documents: KINDS.map(|kind| FATES.map(|fate| family.with_label_values(&[kind, fate]))),
            family,
            bytes: counter(
                "isochrone_elasticsearch_bytes_total",
                "Bytes of documents sent, before compression, those sent again included.",
            ),
            bulks: counter(
                "isochrone_elasticsearch_bulks_total",
                "Bulk requests that were answered.",
            ),
            retries: counter(
                "isochrone_elasticsearch_retried_documents_total",
                "Documents that were put off and sent again on their own.",
            ),
            kinds: Mutex::default(),
        }
    }

    /// Counts a document.
    pub fn count(&self, is_sample: bool, fate: Fate) {
        self.documents[usize::from(is_sample)][fate as usize].inc();
    }

    /// Whether this reason has not been logged yet.
    pub fn is_new_kind(&self, kind: &str) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.len() < MOST_KINDS && kinds.insert(kind.to_owned())
    }

    /// For a page.
    pub fn families(&self) -> Vec<MetricFamily> {
        let plain = [&self.bytes, &self.bulks, &self.retries]
            .into_iter()
            .flat_map(Collector::collect);
        self.family.collect().into_iter().chain(plain).collect()
    }
}
