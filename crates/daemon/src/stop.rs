//! Two-stage shutdown: finish the work, then drop it.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells a daemon to stop. Clones are the same stop.
#[derive(Clone, Debug)]
pub struct Stop {
    state: Arc<watch::Sender<State>>,
}

/// Why a daemon stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its work is done, or it was told to.
    Asked,
    /// Something failed: what.
    Failed(String),
    /// It was told twice.
    Interrupted,
    /// It did not finish within ISOCHRONE_SHUTDOWN.
    TooSlow,
}

#[derive(Clone, Debug)]
struct State {
    stage: Stage,
    /// The first failure, or else the last cause.
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Working,
    Finishing,
    Aborting,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::new()
    }
}

impl Stop {
    /// Not stopping.
    pub fn new() -> Stop {
        let state = State {
            stage: Stage::Working,
            cause: Cause::Asked,
        };
        Stop {
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// Stop taking in, drain, flush, give back, close. Safe to repeat.
    pub fn finish(&self) {
        self.reach(Stage::Finishing, Cause::Asked);
    }

    /// Drop everything now. Safe to repeat.
    pub fn abort(&self) {
        self.reach(Stage::Aborting, Cause::Interrupted);
    }

    /// Finish, and exit with a failure.
    pub fn fail(&self, what: impl Into<String>) {
        self.reach(Stage::Finishing, Cause::Failed(what.into()));
    }

    /// ISOCHRONE_SHUTDOWN has passed: drop everything, and exit with a failure.
    pub(crate) fn give_up(&self) {
        self.reach(Stage::Aborting, Cause::TooSlow);
    }

    /// Finishing or aborting.
    pub fn is_finishing(&self) -> bool {
        self.state.borrow().stage >= Stage::Finishing
    }

    /// Aborting.
    pub fn is_aborting(&self) -> bool {
        self.state.borrow().stage == Stage::Aborting
    }

    /// Why, as far as is known.
    pub fn cause(&self) -> Cause {
        self.state.borrow().cause.clone()
    }

    /// Returns once finishing (or aborting) has begun.
    pub async fn finishing(&self) {
        self.reached(Stage::Finishing).await;
    }

    /// Returns once aborting has begun.
    pub async fn aborting(&self) {
        self.reached(Stage::Aborting).await;
    }

    fn reach(&self, stage: Stage, cause: Cause) {
        self.state.send_if_modified(|state| {
            let failed = matches!(cause, Cause::Failed(_)) && !matches!(state.cause, Cause::Failed(_));
            let further = stage > state.stage;
            if further {
                state.stage = stage;
            }
            // A failure outlasts a mere request, an abort outlasts all.
            if (further && (stage == Stage::Aborting || !matches!(state.cause, Cause::Failed(_))))
                || (failed && state.stage < Stage::Aborting)
            {
                state.cause = cause;
            }
            further
        });
    }

    async fn reached(&self, stage: Stage) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`: this cannot fail.
        let _ = state.wait_for(|state| state.stage >= stage).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stages only move on, a failure outlasts a request, an abort outlasts both.
    #[test]
    fn stages_move_on_and_the_worst_cause_stays() {
        let stop = Stop::new();
        assert!(!stop.is_finishing());
        stop.finish();
        assert!(stop.is_finishing() && !stop.is_aborting());
        assert_eq!(stop.cause(), Cause::Asked);
        stop.fail("task x ended");
        stop.finish();
        assert_eq!(stop.cause(), Cause::Failed("task x ended".to_owned()));
        stop.abort();
        stop.fail("later");
        stop.finish();
        assert!(stop.is_aborting());
        assert_eq!(stop.cause(), Cause::Interrupted);
    }

    /// Who waits before and who waits after are both told.
    #[tokio::test]
    async fn waiters_are_told_before_and_after() {
        let stop = Stop::new();
        let early = tokio::spawn({
            let stop = stop.clone();
            async move { stop.aborting().await }
        });
        tokio::task::yield_now().await;
        stop.abort();
        early.await.unwrap();
        stop.finishing().await;
        stop.aborting().await;
    }
}
