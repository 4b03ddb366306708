//! The estimate as many threads read it and one writes it: a sequence lock over atomics.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering, fence},
};

use isochrone_model::time::Monotonic;

use super::filter::Estimate;

/// How many words an estimate takes.
const WORDS: usize = 6;

/// Readers retry while a writer is in between; writers (once a second) exclude one another.
///
/// After Boehm, "Can seqlocks get along with programming language memory models?" (MSPC 2012).
#[derive(Debug)]
pub struct Shared {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
    writer: Mutex<()>,
}

impl Shared {
    pub fn new(estimate: Estimate) -> Shared {
        Shared {
            version: AtomicU64::new(0),
            words: pack(estimate).map(AtomicU64::new),
            writer: Mutex::new(()),
        }
    }

    pub fn store(&self, estimate: Estimate) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(pack(estimate)) {
            word.store(value, Ordering::Relaxed);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    pub fn load(&self) -> Estimate {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let words = std::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return unpack(words);
            }
            std::hint::spin_loop();
        }
    }
}

fn pack(estimate: Estimate) -> [u64; WORDS] {
    [
        estimate.at.0,
        estimate.offset_ns as u64,
        estimate.bound_ns,
        estimate.drift_ppb as u64,
        estimate.growth_ppm,
        u64::from(estimate.era),
    ]
}

fn unpack(words: [u64; WORDS]) -> Estimate {
    Estimate {
        at: Monotonic(words[0]),
        offset_ns: words[1] as i64,
        bound_ns: words[2],
        drift_ppb: words[3] as i64,
        growth_ppm: words[4],
        era: words[5] as u32,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A reader never sees halves of two estimates.
    #[test]
    fn readers_see_whole_estimates() {
        let of = |n: u64| Estimate {
            at: Monotonic(n),
            offset_ns: -(n as i64),
            bound_ns: n,
            drift_ppb: n as i64,
            growth_ppm: n,
            era: n as u32,
        };
        let shared = Arc::new(Shared::new(of(0)));
        let writer = std::thread::spawn({
            let shared = shared.clone();
            move || (1..200_000).for_each(|n| shared.store(of(n)))
        });
        while !writer.is_finished() {
            let seen = shared.load();
            assert_eq!(seen, of(seen.at.0));
        }
        writer.join().unwrap();
    }
}
