//! One precise timer: an absolute timerfd on the monotonic clock.
//!
//! Tokio's own timers count milliseconds; a schedule of due times needs microseconds.

use std::{io, num::NonZeroU64, os::fd::OwnedFd};

use isochrone_model::time::{Monotonic, NANOS_PER_SECOND};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::{Interest, unix::AsyncFd};

/// Wakes its task at an absolute time of `CLOCK_MONOTONIC`, the clock behind every [`Monotonic`].
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
    armed: Option<Monotonic>,
}

impl Timer {
    /// A timer of the current runtime; also takes the kernel's slack (50 us) from the current thread.
    ///
    /// Errors: no timer to be had from the kernel (descriptor limit).
    pub fn new() -> io::Result<Timer> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let fd = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Timer {
            fd: watch(fd)?,
            armed: None,
        })
    }

    /// Returns at `at`, or at once when that has passed. Safe to drop and to call again with another time.
    ///
    /// Errors: what the kernel says of the timer.
    pub async fn until(&mut self, at: Monotonic) -> io::Result<()> {
        if self.armed != Some(at) {
            self.arm(at)?;
        }
        loop {
            let mut ready = self.fd.readable().await?;
            let mut expirations = [0_u8; 8];
            match rustix::io::read(self.fd.get_ref(), &mut expirations) {
                Ok(_) => {
                    self.armed = None;
                    return Ok(());
                }
                // Readiness left over from a time that was armed before this one.
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    fn arm(&mut self, at: Monotonic) -> io::Result<()> {
        // A value of zero would disarm the timer.
        let ns = at.0.max(1);
        let value = Timespec {
            tv_sec: (ns / NANOS_PER_SECOND as u64) as i64,
            tv_nsec: (ns % NANOS_PER_SECOND as u64) as i64,
        };
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: value,
        };
        rustix::time::timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = Some(at);
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because a type may swap its descriptor; an OwnedFd does not, and unsafe is denied here"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
