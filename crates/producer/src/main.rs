//! The producer daemon: settings from the environment, then join a run, send on schedule, say the last word.

use std::process::ExitCode;

use isochrone_daemon::chassis;
use isochrone_store::types::Role;

fn main() -> ExitCode {
    chassis::run(Role::Producer, |context, settings| {
        isochrone_producer::run(context, settings, None)
    })
}
