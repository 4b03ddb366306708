//! Names and numbers that identify runs, daemons, devices, topics and claims.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::random::fnv;

/// The name of a run: `[A-Za-z0-9._-]+`, at most 128 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName(Arc<str>);

/// A topic as the transport spells it; also used for response topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(pub Arc<str>);

/// One life of one daemon, drawn at random when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DaemonId(pub u64);

/// One life of one device, drawn at random when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(pub u64);

/// A clock domain: hash of boot id and time namespace. Monotonic times compare within one domain only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Domain(pub u32);

/// The fencing number of a claim, compared for equality together with the daemon's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// One slice of a run's response topics; everything of one partition is atomic in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

/// A text that is not a run name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run name {0:?} is not 1 to 128 of the characters A-Z a-z 0-9 . _ -")]
pub struct BadRunName(pub String);

/// A text that is not 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 16 hexadecimal digits")]
pub struct BadHexId(pub String);

impl RunName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Topic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition this response topic belongs to: FNV-1a (64 bit) of its bytes modulo `partitions`.
    pub fn partition(&self, partitions: u16) -> Partition {
        let mut hash = fnv(self.0.as_bytes());
        // The low bits of FNV-1a mix poorly for short names that differ in one digit.
        hash ^= hash >> 32;
        Partition((hash % u64::from(partitions.max(1))) as u16)
    }
}

impl From<&str> for Topic {
    fn from(text: &str) -> Topic {
        Topic(text.into())
    }
}

impl FromStr for RunName {
    type Err = BadRunName;
    fn from_str(text: &str) -> Result<RunName, BadRunName> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(valid) {
            return Err(BadRunName(text.to_owned()));
        }
        Ok(RunName(text.into()))
    }
}

impl TryFrom<String> for RunName {
    type Error = BadRunName;
    fn try_from(text: String) -> Result<RunName, BadRunName> {
        text.parse()
    }
}

impl From<RunName> for String {
    fn from(name: RunName) -> String {
        name.0.to_string()
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! hex_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl FromStr for $name {
            type Err = BadHexId;
            fn from_str(text: &str) -> Result<$name, BadHexId> {
                if text.len() != 16 {
                    return Err(BadHexId(text.to_owned()));
                }
                u64::from_str_radix(text, 16)
                    .map($name)
                    .map_err(|_| BadHexId(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadHexId;
            fn try_from(text: String) -> Result<$name, BadHexId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}
hex_id!(DaemonId);
hex_id!(Epoch);
