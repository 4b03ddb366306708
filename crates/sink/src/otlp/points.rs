//! Requests from what cuts add up to.

use isochrone_model::{
    id::{Partition, RunName},
    window::TopicTotals,
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message;

use super::{
    Temporality, exponential,
    instruments::{COUNTERS, DURATIONS},
};
use crate::measures::SECONDS;

/// The attribute that tells resources apart.
const INSTANCE: &str = "service.instance.id";

/// What one cut says.
pub struct Subject<'a> {
    pub run: &'a RunName,
    pub partition: Partition,
    /// `messaging.system`.
    pub system: String,
    pub interval: Interval,
    /// By the name it shows under.
    pub topics: Vec<(String, TopicTotals)>,
    /// Largest uncertainty of a transit so far, in nanoseconds.
    pub bound_ns: u64,
    /// Seconds so far by their verdict.
    pub verdicts: Vec<(&'static str, u64)>,
    /// It shares no request with others: of one that it was in, points were refused, and nobody says whose.
    pub alone: bool,
}

/// What a point is about, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub start: i64,
    pub end: i64,
}

/// Requests of about `limit` bytes before compression: a topic's points stay together, so one may be larger by that much. The
/// same subjects make the same requests, whatever their gauges.
pub fn requests(subjects: &[Subject<'_>], temporality: Temporality, limit: usize) -> Vec<ExportMetricsServiceRequest> {
    let mut builder = Builder {
        temporality,
        requests: Vec::new(),
        current: Vec::new(),
        size: 0,
    };
    for subject in subjects {
        if subject.alone {
            builder.flush();
        }
        builder.add(subject, limit);
        if subject.alone {
            builder.flush();
        }
    }
    builder.flush();
    builder.requests
}

/// What [`instance_id`] says of a resource that [`requests`] made.
pub fn instance(resource: &ResourceMetrics) -> Option<String> {
    let attributes = &resource.resource.as_ref()?.attributes;
    let pair = attributes.iter().find(|pair| pair.key == INSTANCE)?;
    match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(id) => Some(id.clone()),
        _ => None,
    }
}

/// The identity of a partition.
pub fn instance_id(run: &RunName, partition: Partition) -> String {
    format!("{run}/{partition}")
}

struct Builder {
    temporality: Temporality,
    requests: Vec<ExportMetricsServiceRequest>,
    current: Vec<ResourceMetrics>,
    size: usize,
}

/// The points of several topics of one cut, in the order of the declarations.
struct Points {
    counters: Vec<Vec<NumberDataPoint>>,
    durations: Vec<Vec<ExponentialHistogramDataPoint>>,
    gauges: Vec<Metric>,
}

impl Builder {
    fn add(&mut self, subject: &Subject<'_>, limit: usize) {
        let mut points = Points::none();
        points.gauges = gauges(subject);
        for (topic, totals) in &subject.topics {
            self.size += points.add(subject, self.temporality, topic, totals);
            if self.size >= limit {
                let full = std::mem::replace(&mut points, Points::none());
                self.current.push(full.resource(subject, self.temporality));
                self.flush();
            }
        }
        if !points.is_empty() {
            self.current.push(points.resource(subject, self.temporality));
        }
    }

    fn flush(&mut self) {
        self.size = 0;
        if !self.current.is_empty() {
            self.requests.push(ExportMetricsServiceRequest {
                resource_metrics: std::mem::take(&mut self.current),
            });
        }
    }
}

impl Points {
    fn none() -> Points {
        Points {
            counters: vec![Vec::new(); COUNTERS.len()],
            durations: vec![Vec::new(); DURATIONS.len()],
            gauges: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.gauges.is_empty() && self.counters.iter().all(Vec::is_empty) && self.durations.iter().all(Vec::is_empty)
    }

    /// Adds one topic; how many bytes that is.
    fn add(&mut self, subject: &Subject<'_>, temporality: Temporality, topic: &str, totals: &TopicTotals) -> usize {
        let mut size = 0;
        for (place, counter) in self.counters.iter_mut().zip(COUNTERS.iter()) {
            let value = (counter.value)(totals);
            // A difference of nothing says nothing; a running total of zero says that there was none.
            if value == 0 && temporality == Temporality::Delta {
                continue;
            }
            let attributes = attributes(subject, topic, counter.operation);
            let point = number(
                subject.interval,
                attributes,
                number_data_point::Value::AsInt(signed(value)),
            );
            size += point.encoded_len();
            place.push(point);
        }
        for (place, duration) in self.durations.iter_mut().zip(DURATIONS.iter()) {
            let histogram = (duration.value)(totals);
            if histogram.is_empty() {
                continue;
            }
            let point = ExponentialHistogramDataPoint {
                attributes: attributes(subject, topic, duration.operation),
                start_time_unix_nano: unsigned(subject.interval.start),
                time_unix_nano: unsigned(subject.interval.end),
                ..exponential::point(histogram)
            };
            size += point.encoded_len();
            place.push(point);
        }
        size
    }

    fn resource(self, subject: &Subject<'_>, temporality: Temporality) -> ResourceMetrics {
        let aggregation_temporality = match temporality {
            Temporality::Cumulative => AggregationTemporality::Cumulative,
            Temporality::Delta => AggregationTemporality::Delta,
        } as i32;
        let counters = COUNTERS.iter().zip(self.counters).map(|(counter, data_points)| Metric {
            name: counter.name.clone(),
            description: counter.description.to_owned(),
            unit: "{message}".to_owned(),
            data: (!data_points.is_empty()).then_some(Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic: true,
            })),
            ..Metric::default()
        });
        let durations = DURATIONS
            .iter()
            .zip(self.durations)
            .map(|(duration, data_points)| Metric {
                name: duration.name.clone(),
                description: duration.description.to_owned(),
                unit: "s".to_owned(),
                data: (!data_points.is_empty()).then_some(Data::ExponentialHistogram(ExponentialHistogram {
                    data_points,
                    aggregation_temporality,
                })),
                ..Metric::default()
            });
        let metrics = counters
            .chain(durations)
            .chain(self.gauges)
            .filter(|metric| metric.data.is_some());
        ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "isochrone"),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                    text(INSTANCE, &instance_id(subject.run, subject.partition)),
                    text("isochrone.run", subject.run.as_str()),
                    integer("isochrone.partition", i64::from(subject.partition.0)),
                ],
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "isochrone".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics: metrics.collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }
    }
}

/// What is known of the partition as a whole.
fn gauges(subject: &Subject<'_>) -> Vec<Metric> {
    let gauge = |name: &str, description: &str, unit: &str, data_points| Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        data: Some(Data::Gauge(Gauge { data_points })),
        ..Metric::default()
    };
    let at = Interval {
        start: 0,
        ..subject.interval
    };
    let seconds = subject.verdicts.iter().map(|(verdict, count)| {
        number(
            at,
            vec![text("isochrone.verdict", verdict)],
            number_data_point::Value::AsInt(signed(*count)),
        )
    });
    vec![
        gauge("isochrone.seconds", SECONDS, "{second}", seconds.collect()),
        gauge(
            "isochrone.transit.bound",
            "Largest uncertainty of a transit between two clocks; zero on one host.",
            "s",
            vec![number(
                at,
                Vec::new(),
                number_data_point::Value::AsDouble(subject.bound_ns as f64 / 1e9),
            )],
        ),
    ]
}

fn number(interval: Interval, attributes: Vec<KeyValue>, value: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: unsigned(interval.start),
        time_unix_nano: unsigned(interval.end),
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn attributes(subject: &Subject<'_>, topic: &str, operation: Option<&str>) -> Vec<KeyValue> {
    let mut attributes = vec![text("messaging.destination.name", topic)];
    if let Some(operation) = operation {
        attributes.push(text("messaging.operation.name", operation));
        attributes.push(text("messaging.system", &subject.system));
    }
    attributes
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn integer(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or_default()
}
