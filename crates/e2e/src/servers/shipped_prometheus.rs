//! Prometheus 3 as the Compose file starts it: with `config/prometheus.yml` and the alert rules that are shipped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Prometheus, START, built, folder, free_port, get, percent_encode, program};
use crate::{process::Process, wait};

impl Prometheus {
    /// Scrapes these ports as the shipped configuration scrapes the daemons of a role: `plotter`, `consumer`, `producer`.
    pub fn shipped(ports: &[(&str, Vec<u16>)]) -> Prometheus {
        let (folder, port) = (folder("shipped-prometheus"), free_port());
        let text = fs::read_to_string(config().join("prometheus.yml")).expect("the shipped configuration");
        let rules = config().join("prometheus-alerts.yml");
        let text = with_targets(&text, ports).replace(
            "/etc/prometheus/prometheus-alerts.yml",
            &rules.canonicalize().expect("alert rules").display().to_string(),
        );
        fs::write(folder.path().join("prometheus.yml"), text).expect("prometheus.yml");
        let mut command = built("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                folder.path().join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start("shipped-prometheus", command, folder.path());
        wait::until("Prometheus to be ready", START, || get(port, "/-/ready").is_some());
        Prometheus {
            port,
            _folder: folder,
            _process: process,
        }
    }

    /// How many series a query yields at some time in the last minutes, asked at each multiple of `step_s`; none when it is
    /// refused.
    pub fn results_over(&self, expression: &str, minutes: u32, step_s: u32) -> Option<usize> {
        let now = self.query("vector(time())")?.floor();
        let start = now - f64::from(minutes * 60);
        let query = percent_encode(expression);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={now}&step={step_s}");
        let answer: Value = serde_json::from_str(&get(self.port, &path)?).ok()?;
        Some(answer.pointer("/data/result")?.as_array()?.len())
    }

    /// The alert rules as it evaluates them.
    pub fn rules(&self) -> Vec<Value> {
        let page = get(self.port, "/api/v1/rules").unwrap_or_default();
        let answer: Value = serde_json::from_str(&page).unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let of_group = |group: Value| group["rules"].as_array().cloned().unwrap_or_default();
        groups.into_iter().flat_map(of_group).collect()
    }
}

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

/// The names that the containers' DNS would resolve, replaced by ports of this machine.
fn with_targets(text: &str, ports: &[(&str, Vec<u16>)]) -> String {
    let mut out = String::new();
    let mut in_discovery = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        in_discovery &= indent > 4 || line.trim().is_empty();
        if let Some(names) = line.trim().strip_prefix("- names: [") {
            let role = names.trim_end_matches(']');
            let (_, ports) = ports.iter().find(|(name, _)| *name == role).expect("a known role");
            let targets: Vec<_> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
            out += &format!("    static_configs: [ {{ targets: [{}] }} ]\n", targets.join(", "));
        } else if line.trim() == "dns_sd_configs:" {
            in_discovery = true;
        } else if !in_discovery {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// Runs `promtool` with these arguments.
///
/// # Errors
/// What it says when it is not content.
pub fn promtool_with(arguments: &[&str]) -> Result<(), String> {
    let output = program("promtool").args(arguments).output().expect("promtool");
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&said).into_owned())
    }
}
