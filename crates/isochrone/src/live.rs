//! What is said while a run is under way: a view on a terminal, plain lines elsewhere. Always on stderr.

pub mod awaited;
mod figures;
mod view;

use std::{
    io::{IsTerminal, stderr},
    sync::Arc,
    time::Duration,
};

use isochrone_model::{
    id::RunName,
    time::{Clock, Reference},
};
use isochrone_store::Store;
use tokio::time::{Instant, sleep_until};

use self::{
    figures::{Figures, Gauge},
    view::View,
};
use crate::{
    facts::{Wanted, gather},
    length::Length,
};

/// How often something is said on a terminal, and elsewhere.
const ON_TERMINAL: Duration = Duration::from_secs(1);
const IN_A_LOG: Duration = Duration::from_secs(2);

/// Reading a large fleet's state takes a while; then it is read less often, so that watching stays below a twentieth of
/// one core.
const SHARE: u32 = 20;

/// Watches a run.
pub struct Live {
    /// Where its state is.
    pub store: Arc<dyn Store>,
    /// The reference clock.
    pub clock: Arc<dyn Clock>,
    /// Which.
    pub run: RunName,
    /// Where its devices end by themselves.
    pub length: Length,
}

impl Live {
    /// Watches until dropped.
    pub async fn watch(self) {
        let mut screen = Screen::open();
        let mut gauge = Gauge::default();
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            let begun = Instant::now();
            if let Some(figures) = self.read(&mut gauge).await {
                screen.show(&figures);
            }
            next = begun + screen.interval().max(begun.elapsed() * SHARE);
        }
    }

    async fn read(&self, gauge: &mut Gauge) -> Option<Figures> {
        let run = self.store.run(&self.run).await.ok()??;
        let facts = gather(&*self.store, &run, &Wanted::default()).await.ok()?;
        let now: Reference = self.clock.reference();
        Some(gauge.measure(&facts, now, self.length))
    }
}

enum Screen {
    Terminal(Box<View>),
    Lines,
}

impl Screen {
    fn open() -> Screen {
        match stderr().is_terminal().then(View::open) {
            Some(Ok(view)) => Screen::Terminal(Box::new(view)),
            _ => Screen::Lines,
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Screen::Terminal(_) => ON_TERMINAL,
            Screen::Lines => IN_A_LOG,
        }
    }

    fn show(&mut self, figures: &Figures) {
        match self {
            Screen::Terminal(view) => view.draw(figures),
            Screen::Lines => eprintln!("{}", figures.line()),
        }
    }
}
