//! What each command does.

use std::{error::Error, io::Write, sync::Arc};

use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop, chassis,
    clock::discipline,
    settings::{All, Effective, declarations},
    warden::Warden,
};
use isochrone_model::{
    id::Topic,
    report::{Report, RunFacts, exit_code},
};
use isochrone_store::{
    Store,
    types::{Role, RunState},
};

use crate::{
    cli::{EMBEDDED, Format, Invocation, Task},
    doctor, facts, fleet, health,
    live::awaited,
    purge, runs, samples,
    share::share,
    svg, text,
};

/// Does it, and gives the exit code.
///
/// # Errors
/// What failed, fitting after "failed to".
pub async fn perform(invocation: &Invocation, mut all: All) -> Result<u8, Box<dyn Error>> {
    let format = invocation.format;
    let wanted = facts::Wanted {
        objectives: all.plotter.slo.clone(),
        per_topic: invocation.per_topic,
    };
    match &invocation.task {
        Task::Run => return Box::pin(fleet::run(all, &invocation.source, format, wanted)).await,
        Task::Check => {
            share(&mut all, &invocation.source);
            all.effective.iter().for_each(|one| print(&shown(one)));
        }
        Task::Doctor => {
            let (findings, well) = doctor::examine(&all, format).await?;
            print(&findings);
            return Ok(if well { chassis::DONE } else { chassis::FAILED });
        }
        Task::Health => print(&health::examine(all.common.listen).await?),
        Task::Report { wait } => return report(all, &wanted, *wait, format).await,
        Task::Runs => print(&runs::list(&*open(&all)?, format).await?),
        Task::Samples { topic } => {
            let store = open(&all)?;
            let run = runs::choose(&*store, all.common.run.as_ref()).await?;
            print(&samples::print(&*store, &run, &Topic::from(topic.as_str()), format).await?);
        }
        Task::Purge { force } => {
            let store = open(&all)?;
            // What is purged is gone: never a run that nobody named.
            if all.common.run.is_none() {
                let candidates = runs::candidates(&*store).await?;
                eprintln!("isochrone: purge needs the run's name, --run or ISOCHRONE_RUN; {candidates}");
                return Ok(chassis::BAD_SETTINGS);
            }
            let run = runs::choose(&*store, all.common.run.as_ref()).await?;
            let purged = purge::purge(&*store, &run, &all, *force).await?;
            print(&purged.said);
            return Ok(if purged.whole { chassis::DONE } else { chassis::FAILED });
        }
    }
    Ok(chassis::DONE)
}

async fn report(all: All, wanted: &facts::Wanted, wait: bool, format: Format) -> Result<u8, Box<dyn Error>> {
    let (clock, store) = chassis::open_store(&all.common)?;
    let mut run = runs::choose(&*store, all.common.run.as_ref()).await?;
    if wait {
        // Where no other daemon is left, somebody must see to it that the run ends.
        let shared = Shared {
            common: Arc::new(all.common),
            store: store.clone(),
            clock,
            health: Health::new("report"),
            metrics: Metrics::new(),
        };
        let context = Context::new(Role::Plotter, &shared, Stop::new());
        discipline::start(
            &context.clock,
            &context.store,
            &context.metrics,
            &context.tasks,
            &context.stop,
        );
        let _warden = Warden::start(&context, &run.run);
        if run.state != RunState::Closed {
            eprintln!(
                "isochrone: waiting until run {} is closed; it is {}",
                run.run,
                run.state.as_str()
            );
        }
        run = tokio::select! {
            closed = runs::closed(&*store, &run) => closed?,
            never = awaited::tell(&*store, &*context.clock, &run.run) => match never {},
        };
        context.stop.finish();
    }
    let facts = facts::gather(&*store, &run, wanted).await?;
    Ok(conclude(&facts, format))
}

/// Prints the report, says what is wrong with it on stderr, and gives the exit code.
pub fn conclude(facts: &RunFacts, format: Format) -> u8 {
    let report = Report::build(facts);
    match format {
        Format::Text => print(&text::report(&report)),
        Format::Json => print(&serde_json::to_string_pretty(&report).unwrap_or_default()),
        Format::Svg => print(&svg::picture(facts, &report)),
    }
    for unreadable in &report.unreadable {
        eprintln!("isochrone: not in this report: {unreadable}");
    }
    for unequal in &report.ledger.unequal {
        eprintln!(
            "isochrone: {}: {}: {} ≠ {}",
            unequal.topic, unequal.equation, unequal.left, unequal.right
        );
    }
    for missed in report.slo.iter().filter(|objective| !objective.met) {
        eprintln!("isochrone: objective {}", text::objective(missed));
    }
    exit_code(&report)
}

fn open(all: &All) -> Result<Arc<dyn Store>, isochrone_store::Error> {
    Ok(chassis::open_store(&all.common)?.1)
}

/// One setting as it will be used: broker and store are this process's own unless somebody names others.
fn shown(one: &Effective) -> String {
    let own = declarations()
        .iter()
        .any(|declaration| EMBEDDED.contains(&declaration.field) && declaration.variable() == one.variable);
    if own && one.origin == "default" {
        return format!("{} is not set: embedded", one.variable);
    }
    one.to_string()
}

/// To stdout; a reader that went away is no failure.
fn print(text: &str) {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let _ = write!(std::io::stdout(), "{text}{end}");
}
