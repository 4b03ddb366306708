//! The consumer daemon: claims response topics, listens, and writes down what arrived and when.

use std::process::ExitCode;

use isochrone_daemon::{chassis, settings::ConsumerSettings};
use isochrone_store::types::Role;

fn main() -> ExitCode {
    chassis::run(Role::Consumer, |context, settings: ConsumerSettings| {
        isochrone_consumer::run(context, settings, None)
    })
}
