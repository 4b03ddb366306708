//! A child process: its output in files, ended with the test.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in files of `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Process {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.err"));
        let append = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .expect("output file")
        };
        let child = command
            .stdin(Stdio::null())
            // A group of its own, so that a pipeline ends as a whole.
            .process_group(0)
            .stdout(append(&stdout))
            .stderr(append(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        Process {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let begun = wait::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            if begun.elapsed() > deadline {
                panic!(
                    "{} still runs after {deadline:?}; it said:\n{}",
                    self.name,
                    self.stderr()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end and takes what it has printed and logged.
    pub fn output(mut self, deadline: Duration) -> Output {
        let status = self.wait(deadline);
        let take = |path: &Path| {
            let bytes = fs::read(path).expect("output file");
            fs::remove_file(path).expect("output file");
            bytes
        };
        Output {
            status,
            stdout: take(&self.stdout),
            stderr: take(&self.stderr),
        }
    }

    /// Waits for its end and gives the exit code.
    pub fn exit_code(&mut self, deadline: Duration) -> i32 {
        self.wait(deadline).code().unwrap_or(-1)
    }

    /// Ends it with SIGTERM and waits.
    pub fn stop(&mut self, deadline: Duration) -> i32 {
        if self.runs() {
            self.signal(Signal::TERM);
        }
        self.exit_code(deadline)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(group) = Pid::from_raw(self.pid() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// What it has printed.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has logged.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// The most memory that has been resident so far, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap_or("0");
        line.split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    }

    /// CPU time used so far, in clock ticks (user and system).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or("");
        let field = |index: usize| {
            after_name
                .split_whitespace()
                .nth(index)
                .and_then(|n| n.parse::<u64>().ok())
        };
        field(11).unwrap_or(0) + field(12).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        self.kill();
        if failing {
            let text = self.stderr();
            let tail: Vec<_> = text.lines().rev().take(25).collect();
            let mut out = std::io::stderr().lock();
            let _ = writeln!(out, "── {} said last:", self.name);
            for line in tail.iter().rev() {
                let _ = writeln!(out, "   {line}");
            }
        }
    }
}
