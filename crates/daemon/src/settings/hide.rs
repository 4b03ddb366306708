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
        let (user, host) = address.split_at(address.rfind('@').unwrap_or(0));
        if !user.is_empty() {
            shown.push_str("***");
        }
        // The `@` may as well have stood in the query.
        shown.push_str(&without_values(host, user.contains('?')));
        rest = after;
    }
    shown.push_str(rest);
    shown
}

fn without_scheme(text: &str) -> String {
    if let Some((user, host)) = text.rsplit_once('@')
        && user.contains(':')
        && !user.contains(char::is_whitespace)
    {
        return format!("***@{}", without_values(host, user.contains('?')));
    }
    let of_address = |letter: char| letter.is_ascii_alphanumeric() || ".:/_-[]".contains(letter);
    match text.split_once('?') {
        Some((host, _)) if host.contains(':') && host.chars().all(of_address) => without_values(text, false),
        _ => text.to_owned(),
    }
}

/// Names of a query stay, their values go; so does a part that has no name. `within`: the query has begun before.
fn without_values(address: &str, within: bool) -> String {
    let (host, query) = match address.split_once('?') {
        Some((host, query)) => (host, Some(query)),
        None => (address, None),
    };
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None if part.is_empty() => String::new(),
        None => "***".to_owned(),
    };
    let host = if within {
        let named = |one: &str| if one.contains('=') { part(one) } else { one.to_owned() };
        host.split('&').map(named).collect::<Vec<_>>().join("&")
    } else {
        host.to_owned()
    };
    match query {
        Some(query) => format!("{host}?{}", query.split('&').map(part).collect::<Vec<_>>().join("&")),
        None => host,
    }
}
