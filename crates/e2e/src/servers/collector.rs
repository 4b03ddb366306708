//! The OpenTelemetry Collector, writing what it receives to a file.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{built, folder, free_port, wait_for_port};
use crate::process::Process;

/// The Collector. It may be started, or started again, after those that send to it.
#[derive(Debug)]
pub struct Collector {
    http: u16,
    grpc: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Collector {
    /// Its ports are chosen, nothing listens there yet.
    pub fn prepare() -> Collector {
        Collector::prepare_with(None)
    }

    /// Started, and sending metrics on to this OTLP endpoint as well.
    pub fn forwarding(endpoint: &str) -> Collector {
        let mut collector = Collector::prepare_with(Some(endpoint));
        collector.run();
        collector
    }

    fn prepare_with(forward_to: Option<&str>) -> Collector {
        let (folder, http, grpc) = (folder("collector"), free_port(), free_port());
        let (exporter, name) = match forward_to {
            None => (String::new(), ""),
            Some(endpoint) => (
                format!("  otlp_http: {{ endpoint: '{endpoint}', tls: {{ insecure: true }} }}\n"),
                ", otlp_http",
            ),
        };
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      http: {{ endpoint: '127.0.0.1:{http}' }}\n      \
             grpc: {{ endpoint: '127.0.0.1:{grpc}' }}\n\
             exporters:\n  file: {{ path: '{}' }}\n{exporter}\
             service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    \
             metrics: {{ receivers: [otlp], exporters: [file{name}] }}\n    \
             traces: {{ receivers: [otlp], exporters: [file] }}\n",
            folder.path().join("received.json").display()
        );
        fs::write(folder.path().join("collector.yml"), config).expect("collector.yml");
        Collector {
            http,
            grpc,
            folder,
            process: None,
        }
    }

    /// Prepared and started.
    pub fn start() -> Collector {
        let mut collector = Collector::prepare();
        collector.run();
        collector
    }

    /// Starts it.
    pub fn run(&mut self) {
        let mut command = built("collector");
        command.arg("--config").arg(self.folder.path().join("collector.yml"));
        self.process = Some(Process::start("collector", command, self.folder.path()));
        wait_for_port(self.http);
        wait_for_port(self.grpc);
    }

    /// What ISOCHRONE_OTLP_ENDPOINT must be for http/protobuf.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// What ISOCHRONE_OTLP_ENDPOINT must be for grpc.
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("received.json")
    }

    /// Every request it has written so far (OTLP as JSON); a line that is still being written is left out.
    pub fn received(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Every data point of a metric with its resource's attributes, in the order of arrival.
    pub fn points(&self, metric: &str) -> Vec<Point> {
        let mut points = Vec::new();
        for request in self.received() {
            for resource in each(&request, "resourceMetrics") {
                let instance = attribute(&resource["resource"], "service.instance.id").unwrap_or_default();
                for scope in each(resource, "scopeMetrics") {
                    let named = each(scope, "metrics").iter().filter(|one| one["name"] == metric);
                    for data in named.filter_map(data) {
                        points.extend(each(data, "dataPoints").iter().map(|point| Point {
                            instance: instance.clone(),
                            temporality: data["aggregationTemporality"].as_u64().unwrap_or_default(),
                            value: point.clone(),
                        }));
                    }
                }
            }
        }
        points
    }

    /// The names of all spans.
    pub fn spans(&self) -> Vec<String> {
        let mut names = Vec::new();
        for request in self.received() {
            for resource in each(&request, "resourceSpans") {
                for scope in each(resource, "scopeSpans") {
                    let spans = each(scope, "spans").iter();
                    names.extend(spans.filter_map(|span| span["name"].as_str()).map(str::to_owned));
                }
            }
        }
        names
    }
}

/// One data point as the Collector's file has it.
#[derive(Clone, Debug)]
pub struct Point {
    /// `service.instance.id` of its resource.
    pub instance: String,
    /// 1 delta, 2 cumulative.
    pub temporality: u64,
    /// The point.
    pub value: Value,
}

impl Point {
    /// A number that OTLP's JSON may spell as text.
    pub fn number(&self, field: &str) -> f64 {
        let value = &self.value[field];
        let text = value.as_str().and_then(|text| text.parse().ok());
        text.or_else(|| value.as_f64()).unwrap_or_default()
    }

    /// An attribute of the point.
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.value, key)
    }
}

fn each<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn data(metric: &Value) -> Option<&Value> {
    ["sum", "gauge", "exponentialHistogram", "histogram"]
        .iter()
        .find_map(|kind| metric.get(kind))
}

fn attribute(value: &Value, key: &str) -> Option<String> {
    let pair = each(value, "attributes").iter().find(|pair| pair["key"] == key)?;
    let value = pair["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
