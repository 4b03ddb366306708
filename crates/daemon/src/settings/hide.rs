//! What of a text may be shown.

/// Hides in anything that looks like a URL, also one whose scheme was forgotten, what may be a secret: what stands between `//`
/// and `@` (user, password), and the values of its query (tokens).
pub fn without_secrets(text: &str) -> String {
    if !text.contains("://") {
        return without_scheme(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (head, tail) = rest.split_at(start + 3);
        shown.push_str(head);
        // A password may hold `/`, `?` or `,` where the user forgot to encode it: hide up to the last `@` before a blank.
        let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
        let end = tail[..end]
            .find("://")
            .map_or(end, |next| tail[..next].rfind(',').map_or(end, |comma| comma));
        let (address, after) = tail.split_at(end);
        shown.push_str(&without_user(address));
        rest = after;
    }
    shown.push_str(rest);
    shown
}

fn without_scheme(text: &str) -> String {
    if let Some((user, _)) = text.rsplit_once('@')
        && (user.contains(':') || has_query(user))
        && !user.contains(char::is_whitespace)
    {
        return without_user(text);
    }
    if has_query(text) {
        return without_values(text);
    }
    text.to_owned()
}

/// Whether a text without a scheme looks like an address with a query.
fn has_query(text: &str) -> bool {
    let of_address = |letter: char| letter.is_ascii_alphanumeric() || ".:/_-[]".contains(letter);
    text.split_once('?').is_some_and(|(host, query)| {
        host.chars().all(of_address) && (host.contains(':') || (host.contains('/') && query.contains('=')))
    })
}

fn without_user(address: &str) -> String {
    let Some((user, host)) = address.rsplit_once('@') else {
        return without_values(address);
    };
    if !user.contains('?') {
        return format!("***@{}", without_values(host));
    }
    // Either a password with a `?` or a value of the query with an `@`: then what follows is no host but the value's rest.
    match host.split_once('&') {
        Some((_, query)) => format!("***@***&{}", without_parts(query)),
        None => "***@***".to_owned(),
    }
}

fn without_values(address: &str) -> String {
    match address.split_once('?') {
        Some((host, query)) => format!("{host}?{}", without_parts(query)),
        None => address.to_owned(),
    }
}

/// Names of a query stay, their values go; so does a part that has no name.
fn without_parts(query: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None if part.is_empty() => String::new(),
        None => "***".to_owned(),
    };
    query.split('&').map(part).collect::<Vec<_>>().join("&")
}
