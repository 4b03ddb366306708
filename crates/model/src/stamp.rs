//! What travels with every message: who sent it, which it is, when it was due and when it went.
//!
//! 48 bytes, big-endian: clock domain u32, epoch u64, sequence u64, due i64, sent i64, monotonic sent u64, CRC-32 (IEEE 802.3) of the 44 before it.
//! The highest bit of the sequence is set in messages of warm-up and ramps: sequences stay below 2^63.
//! As text: `isc1.` and 64 characters of base64url (RFC 4648, section 5; 48 bytes need no padding). As bytes: `isc1` and the 48 bytes.

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

use crate::{
    id::{Domain, Epoch},
    time::{Monotonic, Reference},
};

const MAGIC_TEXT: &[u8; 5] = b"isc1.";
const MAGIC_BYTES: &[u8; 4] = b"isc1";
/// The bit of the sequence that marks a message of warm-up or a ramp.
const WARMUP: u64 = 1 << 63;
/// Bytes under the checksum.
const SUMMED: usize = Stamp::LEN - 4;

/// The stamp of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The producer's clock domain.
    pub domain: Domain,
    /// The device life.
    pub epoch: Epoch,
    /// Which message of the epoch; below 2^63.
    pub sequence: u64,
    /// Due in warm-up or a ramp: in the ledger, outside the figures.
    pub warmup: bool,
    /// When the schedule wanted it out.
    pub due: Reference,
    /// When it was offered to the socket; by the same clock offset as `due`.
    pub sent: Reference,
    /// The same moment on the producer's monotonic clock.
    pub sent_monotonic: Monotonic,
}

/// What a payload turned out to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole stamp.
    Stamp(Stamp),
    /// The magic of a stamp, but none with a right checksum.
    Broken,
    /// No trace of a stamp.
    Missing,
}

impl Stamp {
    /// Bytes of the stamp itself.
    pub const LEN: usize = 48;
    /// Bytes of its text form.
    pub const TEXT_LEN: usize = 69;
    /// Bytes of its byte form.
    pub const BYTES_LEN: usize = 52;

    /// The 48 bytes.
    pub fn encode(&self) -> [u8; Stamp::LEN] {
        let mut bytes = [0; Stamp::LEN];
        bytes[0..4].copy_from_slice(&self.domain.0.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.epoch.0.to_be_bytes());
        let sequence = self.sequence & !WARMUP | if self.warmup { WARMUP } else { 0 };
        bytes[12..20].copy_from_slice(&sequence.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.due.0.to_be_bytes());
        bytes[28..36].copy_from_slice(&self.sent.0.to_be_bytes());
        bytes[36..44].copy_from_slice(&self.sent_monotonic.0.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..SUMMED]);
        bytes[SUMMED..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads the 48 bytes; `None` when the checksum is another.
    pub fn decode(bytes: &[u8; Stamp::LEN]) -> Option<Stamp> {
        if crc32fast::hash(&bytes[..SUMMED]).to_be_bytes() != bytes[SUMMED..] {
            return None;
        }
        let sequence = u64::from_be_bytes(*bytes[12..].first_chunk()?);
        Some(Stamp {
            domain: Domain(u32::from_be_bytes(*bytes[0..].first_chunk()?)),
            epoch: Epoch(u64::from_be_bytes(*bytes[4..].first_chunk()?)),
            sequence: sequence & !WARMUP,
            warmup: sequence & WARMUP != 0,
            due: Reference(i64::from_be_bytes(*bytes[20..].first_chunk()?)),
            sent: Reference(i64::from_be_bytes(*bytes[28..].first_chunk()?)),
            sent_monotonic: Monotonic(u64::from_be_bytes(*bytes[36..].first_chunk()?)),
        })
    }

    /// Writes the text form into the first [`TEXT_LEN`](Stamp::TEXT_LEN) bytes of `out`; a shorter `out` is left as it is.
    pub fn write_text(&self, out: &mut [u8]) {
        let Some(out) = out.first_chunk_mut::<{ Stamp::TEXT_LEN }>() else {
            debug_assert!(false, "no room for a stamp");
            return;
        };
        let (magic, text) = out.split_at_mut(MAGIC_TEXT.len());
        magic.copy_from_slice(MAGIC_TEXT);
        // 48 bytes are 64 characters: they always fit.
        let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(self.encode(), text);
    }

    /// Writes the byte form into the first [`BYTES_LEN`](Stamp::BYTES_LEN) bytes of `out`; a shorter `out` is left as it is.
    pub fn write_bytes(&self, out: &mut [u8]) {
        let Some(out) = out.first_chunk_mut::<{ Stamp::BYTES_LEN }>() else {
            debug_assert!(false, "no room for a stamp");
            return;
        };
        let (magic, bytes) = out.split_at_mut(MAGIC_BYTES.len());
        magic.copy_from_slice(MAGIC_BYTES);
        bytes.copy_from_slice(&self.encode());
    }

    /// The text form as a string, for properties and headers.
    pub fn to_text(&self) -> String {
        let mut text = String::from("isc1.");
        BASE64_URL_SAFE_NO_PAD.encode_string(self.encode(), &mut text);
        text
    }
}

/// Looks for a stamp anywhere in `payload`: as text, then as bytes; the first whole one wins. In time linear in its length, whatever it holds.
pub fn find(payload: &[u8]) -> Found {
    // No candidate for the text form lies within another's 64 characters, since `.` is not among them; one for the byte form costs a checksum of 44
    // bytes at most once every 4.
    static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MAGIC_TEXT));
    static BYTES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MAGIC_BYTES));
    let after = |at: usize, magic: usize| payload.get(at + magic..).unwrap_or_default();
    let text = TEXT
        .find_iter(payload)
        .find_map(|at| text_at(after(at, MAGIC_TEXT.len())));
    if let Some(stamp) = text {
        return Found::Stamp(stamp);
    }
    let mut found = Found::Missing;
    for at in BYTES.find_iter(payload) {
        match after(at, MAGIC_BYTES.len()).first_chunk().and_then(Stamp::decode) {
            Some(stamp) => return Found::Stamp(stamp),
            None => found = Found::Broken,
        }
    }
    found
}

/// Looks for a stamp in the value of a property or header named `isochrone`; a value without one is broken, unless it is empty.
pub fn from_property(value: &[u8]) -> Found {
    match find(value) {
        Found::Missing if !value.is_empty() => Found::Broken,
        found => found,
    }
}

fn text_at(text: &[u8]) -> Option<Stamp> {
    let text: &[u8; 64] = text.first_chunk()?;
    let mut bytes = [0; Stamp::LEN];
    BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    Stamp::decode(&bytes)
}
