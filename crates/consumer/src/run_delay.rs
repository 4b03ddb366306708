//! How long the kernel let a thread that could run wait for a processor.

use std::{fs::File, os::unix::fs::FileExt};

/// A thread's count (`/proc/thread-self/schedstat`, second field; proc(5)): it only grows, and asking costs a microsecond.
#[derive(Debug)]
pub struct RunDelay(File);

impl RunDelay {
    /// The current thread's; none where the kernel does not count it.
    pub fn of_this_thread() -> Option<RunDelay> {
        let delay = RunDelay(File::open("/proc/thread-self/schedstat").ok()?);
        delay.total_ns().map(|_| delay)
    }

    /// All there was since the thread began, in nanoseconds.
    pub fn total_ns(&self) -> Option<u64> {
        // Three numbers of at most twenty digits.
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What many threads want at a time, most have to wait for; and it is the thread's own wait.
    #[test]
    fn a_thread_that_waits_for_a_processor_has_a_delay() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let threads: Vec<_> = (0..processors * 4)
            .map(|_| {
                std::thread::spawn(|| {
                    let delay = RunDelay::of_this_thread().unwrap();
                    let before = delay.total_ns().unwrap();
                    let mut turns = 0_u64;
                    while delay.total_ns().unwrap() == before && turns < 100_000_000 {
                        turns += 1;
                    }
                    delay.total_ns().unwrap() > before
                })
            })
            .collect();
        assert!(threads.into_iter().any(|thread| thread.join().unwrap()));
    }
}
