//! Everything in one process: devices, consumers and plotter on an embedded broker and store; and what looks at runs.

mod apart;
mod broker;
mod cli;
mod doctor;
mod events;
mod facts;
mod fleet;
mod health;
mod length;
mod live;
mod purge;
mod runs;
mod samples;
mod share;
mod svg;
mod tasks;
#[cfg(test)]
mod testing;
mod text;

use std::process::ExitCode;

use isochrone_daemon::{chassis, settings, start_logs};

use crate::{cli::Invocation, tasks::perform};

fn main() -> ExitCode {
    let invocation = Invocation::parse();
    let all = match settings::load_all(&invocation.source) {
        Ok(all) => all,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(chassis::BAD_SETTINGS);
        }
    };
    start_logs(&all.common);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("isochrone: failed to start the runtime: {error}");
            return ExitCode::from(chassis::FAILED);
        }
    };
    let code = runtime.block_on(perform(&invocation, all)).unwrap_or_else(|error| {
        eprintln!("isochrone: failed to {error}");
        chassis::FAILED
    });
    runtime.shutdown_background();
    ExitCode::from(code)
}
