//! Opens a transport by URL.

use std::sync::Arc;

use crate::{Error, Transport, memory::Memory};

/// Opens the transport that the scheme of `url` names. Nothing is connected and no file is read yet.
///
/// `memory:NAME` is a process-wide hub of that name; `mqtt://host[:1883]` and `mqtts://host[:8883]` are brokers, user and
/// password of the URL standing in for those of the connection where it has none.
///
/// # Errors
/// [`Error::Url`] when the URL cannot be used; it never shows user info.
pub fn open(url: &str) -> Result<Arc<dyn Transport>, Error> {
    match url.split_once(':') {
        Some(("memory", name)) => Ok(Arc::new(Memory::open(name))),
        #[cfg(feature = "mqtt")]
        Some(("mqtt" | "mqtts", _)) => Ok(Arc::new(crate::mqtt::Mqtt::open(url)?)),
        _ => Err(Error::Url {
            setting: "ISOCHRONE_BROKER",
            url: without_user_info(url),
            cause: "its scheme is none of mqtt:, mqtts:, memory:, for example mqtt://localhost:1883".to_owned(),
        }),
    }
}

/// Hides what may be user info, also in texts that are no URL.
pub(crate) fn without_user_info(text: &str) -> String {
    let after_scheme = text.find("://").map_or(0, |at| at + 3);
    match text[after_scheme..].rfind('@') {
        Some(at) => format!("{}***@{}", &text[..after_scheme], &text[after_scheme + at + 1..]),
        None => text.to_owned(),
    }
}
