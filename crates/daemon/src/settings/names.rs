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

/// A name with a word too many is as near as one with two letters wrong.
const EXTENDED: usize = 2;

/// The line for a name nobody knows, with the nearest one where one is near.
pub fn unknown(name: &str) -> String {
    let typed = name.strip_prefix(PREFIX).unwrap_or(name);
    let distance = |field: &str| {
        let known = field.to_ascii_uppercase();
        let distance = strsim::damerau_levenshtein(typed, &known);
        // ISOCHRONE_TLS_CA_FILE means ISOCHRONE_TLS_CA, though ISOCHRONE_TLS_KEY_FILE has more letters in common.
        let extended = typed.strip_prefix(&known).is_some_and(|rest| rest.starts_with('_'));
        if extended { distance.min(EXTENDED) } else { distance }
    };
    let fields = declarations().iter().flat_map(|declaration| {
        let file = declaration.file.then(|| format!("{}_file", declaration.field));
        std::iter::once(declaration.field.to_owned()).chain(file)
    });
    // Beyond a third of its letters it is another word, not a mistake in this one.
    let nearest = fields
        .map(|field| (distance(&field), field))
        .filter(|(distance, _)| *distance <= typed.len() / 3)
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, field)) => format!(
            "{name} is no setting: did you mean {PREFIX}{}?",
            field.to_ascii_uppercase()
        ),
        None => format!("{name} is no setting: --help lists them"),
    }
}
