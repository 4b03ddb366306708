//! Prometheus 3 with its OTLP receiver; Debian's is older and has none.

use std::fs;

use tempfile::TempDir;

use super::{START, built, folder, free_port, get, query};
use crate::{process::Process, wait};

/// What docs/opentelemetry.md has a user write for it: the run as a label, and room for what a Collector sends out of order.
const CONFIG: &str = "otlp: { promote_resource_attributes: [isochrone.run, isochrone.partition] }\n\
                      storage: { tsdb: { out_of_order_time_window: 30s } }\n";

/// Prometheus 3, written to.
#[derive(Debug)]
pub struct OtlpPrometheus {
    port: u16,
    _folder: TempDir,
    process: Process,
}

impl OtlpPrometheus {
    /// Starts it on a free port.
    pub fn start() -> OtlpPrometheus {
        let (folder, port) = (folder("otlp-prometheus"), free_port());
        fs::write(folder.path().join("prometheus.yml"), CONFIG).expect("prometheus.yml");
        let mut command = built("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                folder.path().join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-otlp-receiver");
        let process = Process::start("otlp-prometheus", command, folder.path());
        wait::until("Prometheus to be ready", START, || get(port, "/-/ready").is_some());
        OtlpPrometheus {
            port,
            _folder: folder,
            process,
        }
    }

    /// What ISOCHRONE_OTLP_ENDPOINT must be.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/otlp", self.port)
    }

    /// The value of an instant query that yields one number, if it yields any.
    pub fn query(&self, expression: &str) -> Option<f64> {
        query(self.port, expression)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}
