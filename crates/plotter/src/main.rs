//! The plotter as a program: every setting comes from the environment.

use std::process::ExitCode;

use isochrone_daemon::chassis;
use isochrone_store::types::Role;

fn main() -> ExitCode {
    chassis::run(Role::Plotter, |context, settings| async move {
        isochrone_plotter::run(context, settings).await
    })
}
