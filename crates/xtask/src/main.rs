//! `cargo xtask test`: everything that must hold, cheapest check first. `--install` gets what the machine lacks.

mod container;
mod go;
mod java;
mod requirement;

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::requirement::{Tests, install, missing};

#[derive(Parser)]
#[command(about = "Development tasks of Isochrone")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, walls, unit, contract and end-to-end tests.
    Test {
        /// Install the servers and tools that the tests need first (Debian packages, cargo-deny, a Java and
        /// Elasticsearch, servers built with Go); with --containers also a Docker engine, and two settings of the kernel.
        #[arg(long)]
        install: bool,
        /// Also try Compose, Swarm and the Helm chart on a Docker engine of the tests' own. As root.
        #[arg(long)]
        containers: bool,
    },
}

/// One step of the tests: what it is for, and the cargo call that does it.
struct Step {
    name: &'static str,
    cargo: &'static [&'static str],
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        cargo: &["fmt", "--all", "--check"],
    },
    Step {
        name: "walls",
        cargo: &["deny", "--log-level", "error", "check", "bans", "licenses", "sources"],
    },
    Step {
        name: "lints",
        cargo: &[
            "clippy",
            "--quiet",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    // Everything at once and with one choice of features: a second choice would compile the dependencies again.
    Step {
        name: "programs and tests",
        cargo: &["test", "--release", "--workspace", "--no-run", "--quiet"],
    },
    Step {
        name: "unit and contract tests",
        cargo: &[
            "test",
            "--release",
            "--workspace",
            "--exclude",
            "isochrone-e2e",
            "--no-fail-fast",
        ],
    },
    // One at a time: each starts servers and many daemons, and two cores carry one such fleet.
    Step {
        name: "end-to-end tests",
        cargo: &[
            "test",
            "--release",
            "--workspace",
            "--test",
            "e2e",
            "--",
            "--test-threads=1",
        ],
    },
];

/// Only when asked for: it needs root, and minutes to make images.
const CONTAINERS: Step = Step {
    name: "containers and chart",
    cargo: &[
        "test",
        "--release",
        "--workspace",
        "--test",
        "deploy",
        "--",
        "--test-threads=1",
    ],
};

fn main() -> ExitCode {
    let Task::Test { install, containers } = Arguments::parse().task;
    let tests = if containers { Tests::Containers } else { Tests::Programs };
    match test(tests, install) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn test(tests: Tests, may_install: bool) -> Result<(), String> {
    let lacking = missing(tests);
    if !lacking.is_empty() && !may_install {
        let names: Vec<_> = lacking.iter().map(|requirement| requirement.describe()).collect();
        return Err(format!(
            "missing: {}\nget them with: cargo xtask test --install",
            names.join(", ")
        ));
    }
    install(&lacking)?;

    let started = clock();
    let more = (tests == Tests::Containers).then_some(&CONTAINERS);
    for step in STEPS.iter().chain(more) {
        let begun = clock();
        eprintln!("── {} (cargo {})", step.name, step.cargo.join(" "));
        run(Command::new("cargo").args(step.cargo)).map_err(|error| format!("{} failed: {error}", step.name))?;
        eprintln!("── {} ok in {:.0?}", step.name, since(begun));
    }
    eprintln!("all ok in {:.0?}", since(started));
    Ok(())
}

/// Runs a command to its end with our own output streams.
fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(status.to_string())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "wall time of a build step; nothing is measured with it"
)]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn since(begun: std::time::Instant) -> Duration {
    Duration::from_secs(begun.elapsed().as_secs())
}
