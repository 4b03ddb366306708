//! A daemon's life, from settings to exit code.

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use isochrone_store::{
    Store,
    memory::MemoryStore,
    redis::{RedisConfig, RedisStore},
    types::Role,
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    Context, Health, Metrics, Shared, Stop,
    clock::{SystemClock, discipline},
    logs, page,
    settings::{self, Common, Loaded, RoleSettings, Source},
    stop::Cause,
    telemetry::Telemetry,
};

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Bad settings.
pub const BAD_SETTINGS: u8 = 2;
/// Interrupted twice.
pub const INTERRUPTED: u8 = 130;

/// What is left of a runtime's tasks after an abort is dropped after this long.
const ABORT: Duration = Duration::from_millis(100);

/// What the command line asks for.
enum Asked {
    Work,
    Check,
    Help,
    Version,
    Unknown(String),
}

/// Runs a daemon: `work` is given its context and settings, and should return when it is done or told to finish.
///
/// Loads settings, starts logs, the health page, the clock discipline and the signals, runs the work, and turns the outcome
/// into DESIGN's exit codes.
pub fn run<S, F, W, T, E>(role: Role, work: F) -> ExitCode
where
    S: RoleSettings,
    F: FnOnce(Context, S) -> W,
    W: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    debug_assert!(role == S::ROLE, "a daemon reads its own settings");
    match asked(std::env::args().skip(1)) {
        Asked::Work => {}
        Asked::Check => return check::<S>(),
        Asked::Help => {
            print(&settings::help(role));
            return ExitCode::from(DONE);
        }
        Asked::Version => {
            print(&format!("isochrone-{} {}\n", role.as_str(), env!("CARGO_PKG_VERSION")));
            return ExitCode::from(DONE);
        }
        Asked::Unknown(argument) => {
            eprintln!("{argument:?} is no argument: settings come from the environment, see --help");
            return ExitCode::from(BAD_SETTINGS);
        }
    }
    let loaded = match settings::load::<S>(&Source::environment()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    // Before the runtime: its clients block.
    let (telemetry, problem) = Telemetry::start(role);
    logs::start_with(&loaded.common, telemetry.tracer());
    if let Some(problem) = problem {
        tracing::warn!("own telemetry is off: {problem}");
    }
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the runtime");
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(live(role, loaded, &telemetry, work));
    // Nothing that still runs may hold the exit back.
    runtime.shutdown_background();
    if code != INTERRUPTED {
        telemetry.finish();
    }
    ExitCode::from(code)
}

/// From settings to exit code.
async fn live<S, F, W, T, E>(role: Role, loaded: Loaded<S>, telemetry: &Telemetry, work: F) -> u8
where
    S: RoleSettings,
    F: FnOnce(Context, S) -> W,
    W: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let stop = Stop::new();
    let shutdown = loaded.common.shutdown;
    // Before anything that waits: a signal must find its handler.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "failed to handle signals");
            return FAILED;
        }
    };
    let context = match context(role, loaded.common, stop.clone()) {
        Ok(context) => context,
        Err(error) => {
            tracing::error!("failed to {error}");
            return FAILED;
        }
    };
    telemetry.observe(&context.metrics);
    drop(context.tasks.spawn("signals", signals.watch(stop.clone(), shutdown)));
    tracing::info!(daemon = %context.daemon, domain = context.domain.0, version = env!("CARGO_PKG_VERSION"), "{} starts", role.as_str());
    let tasks = context.tasks.clone();
    let outcome = tokio::select! {
        outcome = Box::pin(work(context, loaded.settings)) => Some(outcome),
        () = async { stop.aborting().await; tokio::time::sleep(ABORT).await } => None,
    };
    // From here on ended tasks are no failure.
    let failed_before = stop.cause();
    stop.finish();
    match (outcome, failed_before) {
        (_, Cause::Interrupted) => {
            tracing::warn!(running = ?tasks.running(), "interrupted; what was under way is dropped");
            INTERRUPTED
        }
        (_, Cause::TooSlow) => {
            tracing::error!(running = ?tasks.running(), "not finished within ISOCHRONE_SHUTDOWN={shutdown:?}; what was under way is dropped");
            FAILED
        }
        (Some(Err(error)), _) => {
            tracing::error!("failed to {error}");
            FAILED
        }
        (_, Cause::Failed(what)) => {
            tracing::error!("failed to {what}");
            FAILED
        }
        (_, Cause::Asked) => {
            tracing::info!("{} is done", role.as_str());
            DONE
        }
    }
}

/// Everything the work stands on.
fn context(role: Role, common: Common, stop: Stop) -> Result<Context, Box<dyn std::error::Error>> {
    let common = Arc::new(common);
    let (health, metrics) = (Health::new(role.as_str()), Metrics::new());
    page::serve(common.listen, role, &health, &metrics)?;
    let (clock, store) = open_store(&common)?;
    let context = Context::new(
        role,
        &Shared {
            common: common.clone(),
            store,
            clock,
            health,
            metrics,
        },
        stop,
    );
    if !is_memory(&common) {
        discipline::start(
            &context.clock,
            &context.store,
            &context.metrics,
            &context.tasks,
            &context.stop,
        );
    }
    Ok(context)
}

/// The store that ISOCHRONE_REDIS_URL names, and the clock that goes with it: a store in memory tells the host's own time.
pub fn open_store(common: &Common) -> Result<(Arc<SystemClock>, Arc<dyn Store>), isochrone_store::Error> {
    if is_memory(common) {
        let clock = SystemClock::alone(common.clock_domain);
        let store = MemoryStore::new(clock.clone());
        return Ok((clock, store));
    }
    let clock = SystemClock::new(common.clock_domain);
    let config = RedisConfig {
        urls: common.redis_url.clone(),
        tls_ca: common.redis_tls_ca.clone(),
        announce: true,
    };
    let store = RedisStore::connect(&config)?;
    Ok((clock, store))
}

fn is_memory(common: &Common) -> bool {
    common.redis_url.iter().any(|url| url.starts_with("memory:"))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first finishes, the second (or too long a wait) aborts.
    async fn watch(mut self, stop: Stop, shutdown: Duration) {
        tokio::select! {
            () = self.next() => {
                tracing::info!("told to stop; finishing, at most {shutdown:?}; once more to drop everything");
                stop.finish();
            }
            () = stop.finishing() => {}
        }
        tokio::select! {
            () = self.next() => stop.abort(),
            () = tokio::time::sleep(shutdown) => stop.give_up(),
        }
    }
}

/// Two-stage shutdown by SIGTERM and SIGINT for a process that is no daemon: the all-in-one. Call it within a runtime.
pub fn handle_signals(stop: &Stop, tasks: &crate::Tasks, shutdown: Duration) -> std::io::Result<()> {
    let signals = Signals::install()?;
    drop(tasks.spawn("signals", signals.watch(stop.clone(), shutdown)));
    Ok(())
}

/// `--check`
fn check<S: RoleSettings>() -> ExitCode {
    match settings::load::<S>(&Source::environment()) {
        Ok(loaded) => {
            let lines: String = loaded.effective.iter().map(|one| format!("{one}\n")).collect();
            print(&lines);
            ExitCode::from(DONE)
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(BAD_SETTINGS)
        }
    }
}

fn asked(arguments: impl Iterator<Item = String>) -> Asked {
    let mut asked = Asked::Work;
    for argument in arguments {
        asked = match argument.as_str() {
            "--help" | "-h" => return Asked::Help,
            "--version" | "-V" => return Asked::Version,
            "--check" => Asked::Check,
            _ => return Asked::Unknown(argument),
        };
    }
    asked
}

/// To stdout; a reader that went away is no failure.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
