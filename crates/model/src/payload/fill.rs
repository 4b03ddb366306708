//! What makes a payload as long as asked, and numbers without allocating.

use std::io::Write;

/// How the bytes that are missing are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Letters.
    Letters,
    /// A field of a JSON object before its closing brace, after others or alone.
    Field {
        /// Whether the object has no other field.
        alone: bool,
    },
    /// White space.
    Spaces,
}

const LETTER: u8 = b'x';
const NAME: &[u8] = br#","pad":""#;

impl Fill {
    /// Inserts `missing` bytes at `at`.
    pub fn insert(self, at: usize, missing: usize, out: &mut Vec<u8>) {
        let byte = match self {
            Fill::Spaces => b' ',
            Fill::Letters | Fill::Field { .. } => LETTER,
        };
        let tail = out.len() - at;
        out.resize(out.len() + missing, byte);
        // The tail is a few closing characters, or all that follows a `{{pad}}`.
        out.copy_within(at..at + tail, at + missing);
        let (gap, name) = (&mut out[at..at + missing], self.name());
        gap.fill(byte);
        if name.is_empty() {
            return;
        }
        let Some((last, rest)) = gap.split_last_mut().filter(|(_, rest)| rest.len() >= name.len()) else {
            gap.fill(b' ');
            return;
        };
        rest[..name.len()].copy_from_slice(name);
        *last = b'"';
    }

    fn name(self) -> &'static [u8] {
        match self {
            Fill::Field { alone: true } => &NAME[1..],
            Fill::Field { alone: false } => NAME,
            Fill::Letters | Fill::Spaces => &[],
        }
    }
}

pub fn put_number(number: u64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}
