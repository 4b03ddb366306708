//! Names of variables: known, injected by Kubernetes, or a typing mistake.

use super::{PREFIX, table::declarations};

/// A setting of any daemon, or a setting's `_FILE`.
pub fn known(name: &str) -> bool {
    declarations().iter().any(|declaration| {
        let variable = declaration.variable();
        name == variable || (declaration.file && name.strip_suffix("_FILE") == Some(&variable))
    })
}

/// What Kubernetes (and Docker links) put into every container for a service named `isochrone…`. `*_PORT` alone is
/// ignored only when its value is an address, so that `ISOCHRONE_LISTEN_PORT=9000` still is a mistake.
pub fn injected(name: &str, text: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    // A service named just `isochrone` gives ISOCHRONE_PORT, ISOCHRONE_SERVICE_HOST…
    let rest = format!("_{rest}");
    let numbered_port = rest.match_indices("_PORT_").any(|(at, _)| {
        let digits = rest[at + "_PORT_".len()..].split('_').next().unwrap_or("");
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || numbered_port
        || (rest.ends_with("_PORT") && text.contains("://"))
}

/// The line for a name nobody knows, with the nearest one.
pub fn unknown(name: &str) -> String {
    let nearest = declarations()
        .iter()
        .map(|declaration| declaration.variable())
        .min_by_key(|variable| strsim::damerau_levenshtein(name, variable))
        .unwrap_or_default();
    format!("{name} is no setting: did you mean {nearest}?")
}
