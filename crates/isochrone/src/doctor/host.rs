//! Clock and limits of this machine.

use std::fs;

use isochrone_store::Finding;
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_getres},
};

/// Open files a process needs beside one for each connection.
const OTHER_FILES: u64 = 64;

/// What this machine offers to a fleet of so many devices.
pub fn examine(devices: u32) -> Vec<Finding> {
    vec![clock_source(), resolution(), open_files(u64::from(devices))]
}

/// A clock read through the kernel instead of in user space costs a microsecond and more for each stamp.
fn clock_source() -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Ok(source) = fs::read_to_string(path) else {
        return Finding::good("clock source", "not told by this kernel");
    };
    let source = source.trim();
    match source {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => {
            Finding::good("clock source", source)
        }
        slow => Finding::mend(
            "clock source",
            slow,
            "this source is slow to read; boot with clocksource=tsc where the processor has a stable one",
        ),
    }
}

fn resolution() -> Finding {
    let resolution = clock_getres(ClockId::Monotonic);
    let ns = resolution.tv_sec * 1_000_000_000 + resolution.tv_nsec;
    let found = format!("{ns} ns");
    if ns <= 1_000 {
        return Finding::good("clock resolution", &found);
    }
    Finding::mend(
        "clock resolution",
        &found,
        "the kernel lacks high-resolution timers (CONFIG_HIGH_RES_TIMERS)",
    )
}

fn open_files(devices: u64) -> Finding {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = devices.saturating_mul(2).saturating_add(OTHER_FILES);
    let found = format!("{limit} open files, {wanted} wanted for {devices} devices");
    if limit >= wanted {
        return Finding::good("file limit", &found);
    }
    Finding::mend(
        "file limit",
        &found,
        &format!("raise it: `ulimit -n {wanted}`, or LimitNOFILE= of the service"),
    )
}
