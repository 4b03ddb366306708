//! The scripts, and calls of them.

use std::sync::LazyLock;

use redis::{Arg, Cmd, ToRedisArgs, cmd};

/// A script's text and the name under which Redis caches it.
pub(super) struct Loaded {
    code: &'static str,
    sha: String,
}

pub(super) type Script = LazyLock<Loaded>;

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)+) => {
        $(pub(super) static $name: Script = LazyLock::new(|| Loaded::new(concat!($(include_str!($file), "\n"),+)));)+
    };
}

scripts! {
    CLOCK = "clock.lua";
    INDEX = "prelude.lua" "index.lua";
    NAME = "prelude.lua" "name.lua";
    OPEN = "prelude.lua" "open.lua";
    ADVANCE_RUN = "prelude.lua" "advance_run.lua";
    MARK_RESTORED = "prelude.lua" "mark_restored.lua";
    NOTE = "prelude.lua" "note.lua";
    OMIT = "prelude.lua" "omit.lua";
    ENLIST = "prelude.lua" "enlist.lua";
    LEAVE = "prelude.lua" "leave.lua";
    RENEW_MEMBER = "prelude.lua" "renew_member.lua";
    REGISTER = "prelude.lua" "partition.lua" "register.lua";
    CLAIM = "prelude.lua" "partition.lua" "claim.lua";
    READY = "prelude.lua" "partition.lua" "ready.lua";
    GIVE_BACK = "prelude.lua" "partition.lua" "give_back.lua";
    RENEW = "prelude.lua" "partition.lua" "renew.lua";
    EVICT = "prelude.lua" "partition.lua" "evict.lua";
    RELEASE = "prelude.lua" "partition.lua" "release.lua";
    SETTLE = "prelude.lua" "partition.lua" "settle.lua";
    BURY = "prelude.lua" "partition.lua" "bury.lua";
    APPEND = "prelude.lua" "partition.lua" "write.lua" "append.lua";
    APPEND_SENDS = "prelude.lua" "partition.lua" "write.lua" "append_sends.lua";
    HOLD = "prelude.lua" "partition.lua" "hold.lua";
    CUT = "prelude.lua" "partition.lua" "cut.lua";
    ADVANCE = "prelude.lua" "partition.lua" "advance.lua";
    RETAIN = "prelude.lua" "partition.lua" "retain.lua";
    LET_GO = "prelude.lua" "partition.lua" "let_go.lua";
    FINISH = "prelude.lua" "partition.lua" "finish.lua";
    SNAPSHOT = "prelude.lua" "partition.lua" "snapshot.lua";
    PURGE = "prelude.lua" "partition.lua" "purge.lua";
}

impl Loaded {
    fn new(code: &'static str) -> Loaded {
        Loaded {
            code,
            sha: redis::Script::new(code).get_hash().to_owned(),
        }
    }
}

/// One command to Redis, by name of its script where it is one.
pub(super) struct Call {
    pub cmd: Cmd,
    script: Option<&'static Script>,
}

impl Call {
    pub fn script(script: &'static Script, prefix: &str) -> Call {
        let mut cmd = cmd("EVALSHA");
        cmd.arg(&script.sha).arg(1).arg(prefix);
        Call {
            cmd,
            script: Some(script),
        }
    }

    pub fn plain(name: &str, key: &str) -> Call {
        let mut cmd = cmd(name);
        cmd.arg(key);
        Call { cmd, script: None }
    }

    pub fn arg(mut self, arg: impl ToRedisArgs) -> Call {
        self.cmd.arg(arg);
        self
    }

    /// The same with the script's text, for a server that does not know it (yet, or after a restart).
    pub fn in_full(&self) -> Option<Cmd> {
        let mut full = cmd("EVAL");
        full.arg(self.script?.code);
        for arg in self.cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                full.arg(bytes);
            }
        }
        Some(full)
    }
}
