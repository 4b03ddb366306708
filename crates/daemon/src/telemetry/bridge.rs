//! The daemon's metrics as instruments: what `/metrics` shows of the daemon itself, read when the SDK collects.

use std::collections::BTreeSet;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, MeterProvider},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use crate::Metrics;

/// Makes instruments for all there are now and for those to come.
pub fn observe(provider: &SdkMeterProvider, metrics: &Metrics) {
    let meter = provider.meter("isochrone");
    let mut known = BTreeSet::new();
    metrics.on_new(Box::new(move |metrics, family| {
        if !known.insert(family.name().to_owned()) {
            return;
        }
        let (name, kind) = (family.name().to_owned(), family.get_field_type());
        let read = {
            let (name, metrics) = (name.clone(), metrics.clone());
            move |observer: &dyn AsyncInstrument<f64>| {
                for metric in metrics.own(&name).iter().flat_map(MetricFamily::get_metric) {
                    observer.observe(value(metric, kind), &attributes(metric));
                }
            }
        };
        // Prometheus's suffixes say kind and unit, which OpenTelemetry has fields for.
        let short = name.strip_suffix("_total").unwrap_or(&name);
        let (short, unit) = match short.strip_suffix("_seconds") {
            Some(short) => (short, "s"),
            None => (short, ""),
        };
        let (short, help) = (short.to_owned(), family.help().to_owned());
        if kind == MetricType::COUNTER {
            let counter = meter
                .f64_observable_counter(short)
                .with_unit(unit)
                .with_description(help);
            counter.with_callback(read).build();
        } else {
            let gauge = meter.f64_observable_gauge(short).with_unit(unit).with_description(help);
            gauge.with_callback(read).build();
        }
    }));
}

fn value(metric: &Metric, kind: MetricType) -> f64 {
    match kind {
        MetricType::COUNTER => metric.get_counter().get_value(),
        _ => metric.get_gauge().get_value(),
    }
}

fn attributes(metric: &Metric) -> Vec<KeyValue> {
    let pairs = metric.get_label().iter();
    pairs
        .map(|pair| KeyValue::new(pair.name().to_owned(), pair.value().to_owned()))
        .collect()
}
