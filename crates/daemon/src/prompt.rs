//! How soon the kernel runs a thread that has something to do.

use std::io;

use tracing::debug;

/// The slice of processor time that a prompt thread asks for at a time, in nanoseconds: the least the kernel grants.
const SLICE_NS: u64 = 100_000;

/// Lets the current thread run soon after it wakes, at the price of shorter turns.
///
/// Linux's fair scheduler (EEVDF, 6.12 and newer) runs first who has the earliest virtual deadline, and a deadline is as far
/// away as the slice is long, 3 ms unless asked otherwise: on a busy machine that is how late a message becomes before we run
/// at all. A shorter slice gives no greater share of the processor and needs no privilege (sched_setattr(2), `sched_runtime`).
/// Older kernels ignore the wish.
pub fn wake_promptly() {
    if let Err(error) = ask_for(SLICE_NS) {
        debug!(%error, "the kernel grants no shorter slice");
    }
}

fn ask_for(slice_ns: u64) -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    // The first version of `struct sched_attr`; later fields are optional.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    let current_thread = 0;
    #[expect(
        unsafe_code,
        reason = "no crate wraps sched_setattr for ordinary threads; the kernel only reads the structure"
    )]
    // SAFETY: `attributes` lives through the call and says its own size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, current_thread, &raw const attributes, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unprivileged wish that changes nothing but the slice: niceness stays, and asking again is harmless.
    #[test]
    fn a_thread_keeps_its_niceness() {
        let asked = std::thread::spawn(|| {
            let before = rustix::process::nice(3).unwrap();
            ask_for(SLICE_NS).unwrap();
            ask_for(SLICE_NS).unwrap();
            (before, rustix::process::getpriority_process(None).unwrap())
        });
        let (before, after) = asked.join().unwrap();
        assert_eq!(before, after);
    }
}
