//! Just enough JSON to add a field to an object without touching the rest of it.

/// Where a JSON object that is a template can take a further field.
pub struct Object {
    /// Just after the opening brace, in the text it begins with.
    pub first: usize,
    /// Before the closing brace, in the text it ends with.
    pub last: usize,
    /// It has no field.
    pub empty: bool,
    /// It has a field `pad` of its own.
    pub has_pad: bool,
}

/// What a template is as a JSON object: it begins with `first` and ends with `last` (which may be the same text), and `sample` is all of it with
/// something valid in place of each name. `None` when it is none.
pub fn object(first: &[u8], last: &[u8], sample: &[u8]) -> Option<Object> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(sample).ok()?;
    Some(Object {
        first: first.iter().position(|byte| *byte == b'{')? + 1,
        last: last.iter().rposition(|byte| *byte == b'}')?,
        empty: fields.is_empty(),
        has_pad: fields.contains_key("pad"),
    })
}

/// Appends `text` as it stands within the quotes of a JSON string (RFC 8259, section 7).
pub fn put_escaped(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let start = out.len();
    // A string always serialises, and writing to a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *out, text);
    out.remove(start);
    out.pop();
}
