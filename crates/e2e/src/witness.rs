//! Whether this machine stood still while a test ran.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, available_parallelism, sleep},
    time::Duration,
};

use crate::wait;

const PAUSE: Duration = Duration::from_millis(5);

/// Threads that only sleep, as many as there are cores, and see how late they wake: what has nothing to do with the programs under
/// test and yet is late was held up by the machine. What works may be held up longer than what sleeps: a short time seen here
/// does not prove that the machine ran well.
#[derive(Debug)]
pub struct Witness {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Witness {
    /// Begins to look.
    pub fn start() -> Witness {
        let done = Arc::new(AtomicBool::new(false));
        let look = |_| {
            let done = done.clone();
            thread::spawn(move || {
                let mut worst = Duration::ZERO;
                while !done.load(Ordering::Relaxed) {
                    let before = wait::now();
                    sleep(PAUSE);
                    worst = worst.max(before.elapsed() - PAUSE);
                }
                worst
            })
        };
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = (0..cores).map(look).collect();
        Witness { done, threads }
    }

    /// The longest time that one of them was held up.
    pub fn worst(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        let each = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("the witness"));
        each.max().unwrap_or_default()
    }
}
