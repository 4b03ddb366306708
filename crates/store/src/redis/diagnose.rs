//! Whether this Redis keeps what a run trusts it with.

use redis::{FromRedisValue, Value};

use super::{RedisStore, scripts::Call};
use crate::{Error, Finding};

/// Scripts use commands of this version.
const OLDEST: u64 = 7;

impl RedisStore {
    /// Reachability, version, persistence and memory policy. Settings the server does not tell are left out.
    pub async fn diagnose(&self) -> Vec<Finding> {
        let info = match self.connection.call_for_much(Call::plain("INFO", "server")).await {
            Ok(info) => String::from_redis_value(info).unwrap_or_default(),
            Err(error) => return vec![unreachable(&error)],
        };
        let mut findings = vec![version(&info)];
        findings.extend(self.setting("appendonly").await.map(|value| append_only(&value)));
        findings.extend(self.setting("appendfsync").await.map(|value| fsync(&value)));
        findings.extend(self.setting("maxmemory-policy").await.map(|value| eviction(&value)));
        findings
    }

    async fn setting(&self, name: &str) -> Option<String> {
        let answer = self
            .connection
            .call(Call::plain("CONFIG", "GET").arg(name))
            .await
            .ok()?;
        match answer {
            Value::Array(pair) => String::from_redis_value(pair.into_iter().nth(1)?).ok(),
            Value::Map(pairs) => String::from_redis_value(pairs.into_iter().next()?.1).ok(),
            _ => None,
        }
    }
}

fn unreachable(error: &Error) -> Finding {
    let mend = "start Redis 7 or newer there, or mend ISOCHRONE_REDIS_URL (and ISOCHRONE_REDIS_TLS_CA)";
    Finding::fails("redis", &format!("failed to {error}"), mend)
}

fn version(info: &str) -> Finding {
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap_or("unknown")
        .trim();
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    match major {
        Some(major) if major >= OLDEST => Finding::good("redis", version),
        _ => Finding::fails("redis", version, "use Redis 7 or newer"),
    }
}

fn append_only(value: &str) -> Finding {
    let what = "redis persistence";
    if value == "yes" {
        return Finding::good(what, "appendonly yes");
    }
    // How often that is then synced is a finding of its own.
    let mend = "a restart would lose the run: set `appendonly yes` in its configuration, or while it runs with `redis-cli config set appendonly yes`";
    Finding::mend(what, &format!("appendonly {value}"), mend)
}

fn fsync(value: &str) -> Finding {
    let what = "redis fsync";
    if value == "no" {
        return Finding::mend(
            what,
            "appendfsync no",
            "a crash may lose more than a second: set `appendfsync everysec`",
        );
    }
    Finding::good(what, &format!("appendfsync {value}"))
}

fn eviction(value: &str) -> Finding {
    let what = "redis eviction";
    if value == "noeviction" {
        return Finding::good(what, value);
    }
    Finding::mend(
        what,
        value,
        "keys of a run could be evicted: set `maxmemory-policy noeviction`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each finding says what to change of what it found, and of nothing else.
    #[test]
    fn advice_is_about_what_was_found() {
        for (finding, named, other) in [
            (append_only("no"), "`appendonly yes`", "appendfsync"),
            (fsync("no"), "`appendfsync everysec`", "appendonly"),
            (eviction("allkeys-lru"), "`maxmemory-policy noeviction`", "append"),
        ] {
            let mend = finding.mend.unwrap();
            assert!(mend.contains(named) && !mend.contains(other), "{mend}");
        }
        for well in [
            append_only("yes"),
            fsync("everysec"),
            fsync("always"),
            eviction("noeviction"),
        ] {
            assert_eq!(well.mend, None, "{}", well.what);
        }
    }
}
