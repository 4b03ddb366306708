//! Cares for what dead daemons leave behind, and moves a run on.

use isochrone_model::id::RunName;
use tokio::task::JoinHandle;

use crate::Context;

/// The task that watches one run.
#[derive(Debug)]
pub struct Warden {
    task: JoinHandle<()>,
}

impl Warden {
    /// Starts watching; ends when the run is closed, when dropped, or when the daemon aborts.
    pub fn start(context: &Context, run: &RunName) -> Warden {
        let _ = run;
        Warden {
            task: context.tasks.spawn_job("warden", async {}),
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.task.abort();
    }
}
