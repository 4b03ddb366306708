//! Whether this machine stood still while a test ran.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use crate::wait;

const PAUSE: Duration = Duration::from_millis(5);

/// A thread that only sleeps, and sees how late it wakes: what has nothing to do with the programs under test and yet is late
/// was held up by the machine.
#[derive(Debug)]
pub struct Witness {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Witness {
    /// Begins to look.
    pub fn start() -> Witness {
        let done = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let done = done.clone();
            move || {
                let mut worst = Duration::ZERO;
                while !done.load(Ordering::Relaxed) {
                    let before = wait::now();
                    sleep(PAUSE);
                    worst = worst.max(before.elapsed() - PAUSE);
                }
                worst
            }
        });
        Witness { done, thread }
    }

    /// The longest time that it was held up.
    pub fn worst(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("the witness")
    }
}
