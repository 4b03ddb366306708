//! The daemon's own metrics: declared once as data, served at `/metrics`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, Opts, TextEncoder,
    core::Collector,
    proto::{MetricFamily, MetricType},
};

/// One metric, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Prometheus name with unit: `isochrone_producer_sent_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
}

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// All metrics of a process. Clones are the same metrics.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

/// Gives families at each scrape.
pub type Source = Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// Told of each metric when it is first asked for.
pub(crate) type Listener = Box<dyn FnMut(&Metrics, &MetricFamily) + Send>;

#[derive(Default)]
struct Inner {
    counters: BTreeMap<&'static str, IntCounter>,
    counter_vecs: BTreeMap<&'static str, IntCounterVec>,
    gauges: BTreeMap<&'static str, Gauge>,
    sources: Vec<Source>,
    listener: Option<Listener>,
}

impl Metric {
    /// A counter; by convention its name ends in `_total`.
    pub const fn counter(name: &'static str, help: &'static str) -> Metric {
        Metric {
            name,
            kind: Kind::Counter,
            help,
            labels: &[],
        }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str) -> Metric {
        Metric {
            name,
            kind: Kind::Gauge,
            help,
            labels: &[],
        }
    }

    /// The same with labels; read it with [`Metrics::counter_vec`].
    pub const fn labelled(mut self, labels: &'static [&'static str]) -> Metric {
        self.labels = labels;
        self
    }
}

impl Metrics {
    /// None yet.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// The counter of that name; the same one whenever asked.
    pub fn counter(&self, metric: &Metric) -> IntCounter {
        let mut inner = self.lock();
        if let Some(counter) = inner.counters.get(metric.name) {
            return counter.clone();
        }
        match IntCounter::new(metric.name, metric.help) {
            Ok(counter) => {
                inner.counters.insert(metric.name, counter.clone());
                drop(inner);
                self.tell(metric);
                counter
            }
            Err(error) => {
                drop(inner);
                tracing::error!(metric = metric.name, %error, "a metric has a bad name and is not served");
                fallback(IntCounter::new("isochrone_unnamed_total", "A metric with a bad name."))
            }
        }
    }

    /// The counters of that name and those labels; the same ones whenever asked.
    pub fn counter_vec(&self, metric: &Metric) -> IntCounterVec {
        let mut inner = self.lock();
        if let Some(counter) = inner.counter_vecs.get(metric.name) {
            return counter.clone();
        }
        match IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels) {
            Ok(counter) => {
                inner.counter_vecs.insert(metric.name, counter.clone());
                drop(inner);
                self.tell(metric);
                counter
            }
            Err(error) => {
                drop(inner);
                tracing::error!(metric = metric.name, %error, "a metric has a bad name and is not served");
                fallback(IntCounterVec::new(
                    Opts::new("isochrone_unnamed_total", "A metric with a bad name."),
                    metric.labels,
                ))
            }
        }
    }

    /// The gauge of that name; the same one whenever asked.
    pub fn gauge(&self, metric: &Metric) -> Gauge {
        let mut inner = self.lock();
        if let Some(gauge) = inner.gauges.get(metric.name) {
            return gauge.clone();
        }
        match Gauge::new(metric.name, metric.help) {
            Ok(gauge) => {
                inner.gauges.insert(metric.name, gauge.clone());
                drop(inner);
                self.tell(metric);
                gauge
            }
            Err(error) => {
                drop(inner);
                tracing::error!(metric = metric.name, %error, "a metric has a bad name and is not served");
                fallback(Gauge::new("isochrone_unnamed", "A metric with a bad name."))
            }
        }
    }

    /// Tells `listener` of every metric there is and of every one to come.
    pub(crate) fn on_new(&self, mut listener: Listener) {
        let (families, _) = self.collected();
        for family in &families {
            listener(self, family);
        }
        self.lock().listener = Some(listener);
    }

    fn tell(&self, metric: &Metric) {
        // Without the lock: the listener reads these metrics.
        let Some(mut listener) = self.lock().listener.take() else {
            return;
        };
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        listener(self, &family);
        self.lock().listener = Some(listener);
    }

    /// One of the daemon's own metrics (none of a source).
    pub(crate) fn own(&self, name: &str) -> Vec<MetricFamily> {
        let inner = self.lock();
        let counter = inner.counters.get(name).map(Collector::collect);
        let counters = inner.counter_vecs.get(name).map(Collector::collect);
        let gauge = inner.gauges.get(name).map(Collector::collect);
        counter.or(counters).or(gauge).unwrap_or_default()
    }

    fn collected(&self) -> (Vec<MetricFamily>, Vec<Source>) {
        let inner = self.lock();
        let mut families: Vec<MetricFamily> = inner.counters.values().flat_map(Collector::collect).collect();
        families.extend(inner.counter_vecs.values().flat_map(Collector::collect));
        families.extend(inner.gauges.values().flat_map(Collector::collect));
        (families, inner.sources.clone())
    }

    /// Adds a source asked at every scrape.
    pub fn add_source(&self, source: Source) {
        self.lock().sources.push(source);
    }

    /// Everything, in Prometheus's text format.
    pub fn encode(&self) -> String {
        let (mut families, sources) = self.collected();
        // Sources are asked without the lock: they may take their time or use these metrics.
        families.extend(sources.iter().flat_map(|source| source()));
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut bytes = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut bytes) {
            tracing::error!(%error, "failed to encode metrics");
        }
        String::from_utf8(bytes).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A constant name cannot be refused.
#[expect(
    clippy::expect_used,
    reason = "the names here are constants that the tests have seen accepted"
)]
fn fallback<T>(metric: Result<T, prometheus::Error>) -> T {
    metric.expect("constant metric names are valid")
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Metric = Metric::counter("isochrone_test_sent_total", "Sent.");
    const DEPTH: Metric = Metric::gauge("isochrone_test_depth", "Depth.");
    const FAILED: Metric = Metric::counter("isochrone_test_failed_total", "Failed.").labelled(&["reason"]);

    /// Asked twice, a metric is the same one; all of them are served once with their help.
    #[test]
    fn metrics_are_served_once() {
        let metrics = Metrics::new();
        metrics.counter(&SENT).inc();
        metrics.counter(&SENT).inc();
        metrics.gauge(&DEPTH).set(2.5);
        metrics.counter_vec(&FAILED).with_label_values(&["tcp refused"]).inc();
        let text = metrics.encode();
        assert!(text.contains("isochrone_test_sent_total 2\n"), "{text}");
        assert!(text.contains("isochrone_test_depth 2.5\n"), "{text}");
        assert!(
            text.contains("isochrone_test_failed_total{reason=\"tcp refused\"} 1\n"),
            "{text}"
        );
        assert_eq!(text.matches("# HELP").count(), 3);
    }

    /// A bad name costs the metric, not the daemon.
    #[test]
    fn a_bad_name_is_not_served() {
        let metrics = Metrics::new();
        metrics.counter(&Metric::counter("bad name", "x")).inc();
        metrics.gauge(&Metric::gauge("bad name", "x")).set(1.0);
        metrics
            .counter_vec(&Metric::counter("bad name", "x").labelled(&["l"]))
            .with_label_values(&["v"])
            .inc();
        assert_eq!(metrics.encode(), "");
    }
}
