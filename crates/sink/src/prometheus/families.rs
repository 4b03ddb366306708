//! Metric families from what the partitions show.

use std::collections::BTreeMap;

use isochrone_model::{
    id::{Partition, RunName},
    time::Monotonic,
    verdict::Reason,
};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::{
    Generation, OTHER, Presence, Shown,
    series::{Classic, Series},
};
use crate::measures::{COUNTS, LATENCIES, SECONDS};

/// Everything visible; families without a metric are left out (the text encoder refuses them).
pub(super) fn render(
    buckets: &[f64],
    now: Monotonic,
    partitions: &BTreeMap<(RunName, Partition), Shown>,
    runs: &BTreeMap<RunName, Vec<(String, String)>>,
) -> Vec<MetricFamily> {
    let visible: Vec<_> = partitions
        .iter()
        .filter_map(|((run, partition), shown)| Some((run, *partition, shown.visible(now)?)))
        .collect();
    let mut families = Vec::new();
    let series: Vec<(Vec<LabelPair>, &Series)> = visible
        .iter()
        .flat_map(|(run, partition, generation)| labelled(run, *partition, generation))
        .collect();
    for (place, count) in COUNTS.iter().enumerate() {
        let metrics = series
            .iter()
            .map(|(labels, series)| counter(labels.clone(), series.counters[place]));
        let name = format!("isochrone_{}_total", count.name.replace('.', "_"));
        families.push(family(&name, count.help, MetricType::COUNTER, metrics.collect()));
    }
    for (place, latency) in LATENCIES.iter().enumerate() {
        let metrics = series
            .iter()
            .map(|(labels, series)| histogram(labels.clone(), buckets, &series.histograms[place]));
        let name = format!("isochrone_{}_seconds", latency.name.replace('.', "_"));
        families.push(family(&name, latency.help, MetricType::HISTOGRAM, metrics.collect()));
    }

    let seconds = visible.iter().flat_map(|(run, partition, generation)| {
        Reason::ALL
            .into_iter()
            .zip(generation.verdicts.counts)
            .map(|(reason, count)| {
                let mut labels = of_partition(run, *partition);
                labels.push(label("verdict", reason.name()));
                counter(labels, count)
            })
    });
    families.push(family(
        "isochrone_seconds_total",
        SECONDS,
        MetricType::COUNTER,
        seconds.collect(),
    ));
    let unknown = visible
        .iter()
        .map(|(run, partition, generation)| counter(of_partition(run, *partition), generation.unknown_epochs));
    families.push(family(
        "isochrone_unknown_epochs_total",
        "Parts of entries of devices that no registration was found for.",
        MetricType::COUNTER,
        unknown.collect(),
    ));
    let bounds = visible
        .iter()
        .map(|(run, partition, generation)| gauge(of_partition(run, *partition), generation.bound_ns as f64 / 1e9));
    families.push(family(
        "isochrone_transit_bound_seconds",
        "Largest uncertainty of a transit between two clocks; zero on one host. The daemon's own is isochrone_clock_bound_seconds.",
        MetricType::GAUGE,
        bounds.collect(),
    ));
    // A closed run gets no newer, and must not look as if it fell behind.
    let held = |run: &RunName, partition: Partition| {
        let shown = partitions.get(&(run.clone(), partition));
        shown.is_some_and(|shown| matches!(shown.presence, Presence::Held(_)))
    };
    let cuts = visible
        .iter()
        .filter(|(run, partition, _)| held(run, *partition))
        .map(|(run, partition, generation)| gauge(of_partition(run, *partition), generation.second.0 as f64));
    families.push(family(
        "isochrone_cut_timestamp_seconds",
        "The newest second that the figures of a partition hold, in Unix time; gone when its run is closed.",
        MetricType::GAUGE,
        cuts.collect(),
    ));
    let infos = runs
        .iter()
        .filter(|(run, _)| visible.iter().any(|(other, ..)| other == run))
        .map(|(run, info)| {
            let mut labels = vec![label("run", run.as_str())];
            labels.extend(info.iter().map(|(name, value)| label(name, value)));
            gauge(labels, 1.0)
        });
    families.push(family(
        "isochrone_run_info",
        "A run that this plotter works on.",
        MetricType::GAUGE,
        infos.collect(),
    ));

    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|one, other| one.name().cmp(other.name()));
    families
}

fn labelled<'a>(run: &RunName, partition: Partition, generation: &'a Generation) -> Vec<(Vec<LabelPair>, &'a Series)> {
    let topics = generation.topics.iter().map(|(topic, series)| (topic.as_str(), series));
    let all = topics.chain(generation.other.iter().map(|series| (OTHER, series)));
    let labelled = all.map(|(topic, series)| {
        let mut labels = of_partition(run, partition);
        labels.push(label("topic", topic));
        (labels, series)
    });
    labelled.collect()
}

fn of_partition(run: &RunName, partition: Partition) -> Vec<LabelPair> {
    vec![label("run", run.as_str()), label("partition", &partition.to_string())]
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub(crate) fn counter(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: Vec<LabelPair>, buckets: &[f64], classic: &Classic) -> Metric {
    let bucket = |(bound, count): (&f64, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.iter().zip(&classic.cumulative).map(bucket).collect());
    histogram.set_sample_count(classic.count);
    histogram.set_sample_sum(classic.sum_ns as f64 / 1e9);
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

pub(crate) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
