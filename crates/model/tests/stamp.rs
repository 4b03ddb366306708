//! Stamps are found wherever a platform leaves them, and never where there is none.

use isochrone_model::{
    id::{Domain, Epoch},
    stamp::{Found, Stamp, find, from_property},
    time::{Monotonic, Reference},
};
use proptest::prelude::*;

prop_compose! {
    fn stamp()(domain: u32, epoch: u64, sequence in 0..1_u64 << 63, warmup: bool, due: i64, sent: i64, monotonic: u64) -> Stamp {
        Stamp {
            domain: Domain(domain),
            epoch: Epoch(epoch),
            sequence,
            warmup,
            due: Reference(due),
            sent: Reference(sent),
            sent_monotonic: Monotonic(monotonic),
        }
    }
}

fn text(stamp: &Stamp) -> Vec<u8> {
    let mut out = vec![0; Stamp::TEXT_LEN];
    stamp.write_text(&mut out);
    out
}

fn bytes(stamp: &Stamp) -> Vec<u8> {
    let mut out = vec![0; Stamp::BYTES_LEN];
    stamp.write_bytes(&mut out);
    out
}

proptest! {
    /// Both forms are found between any bytes.
    #[test]
    fn round_trip(stamp in stamp(), before: Vec<u8>, after: Vec<u8>) {
        prop_assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
        for form in [text(&stamp), bytes(&stamp)] {
            let payload = [&before[..], &form, &after].concat();
            prop_assert_eq!(find(&payload), Found::Stamp(stamp));
            prop_assert_eq!(from_property(&payload), Found::Stamp(stamp));
        }
        prop_assert_eq!(stamp.to_text().into_bytes(), text(&stamp));
    }

    /// Any flipped bit is noticed: never another stamp, never the same.
    #[test]
    fn flipped_bit(stamp in stamp(), bit: prop::sample::Index) {
        for mut form in [text(&stamp), bytes(&stamp)] {
            let bit = bit.index(form.len() * 8);
            form[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(find(&form), Found::Stamp(_)));
        }
    }

    /// A stamp cut short is broken, or missing where its magic is cut too.
    #[test]
    fn cut_short(stamp in stamp(), cut: prop::sample::Index) {
        for form in [text(&stamp), bytes(&stamp)] {
            let length = cut.index(form.len());
            let expected = if length >= 4 { Found::Broken } else { Found::Missing };
            prop_assert_eq!(find(&form[..length]), expected);
        }
    }

    /// No payload makes the search panic; without a magic nothing is found.
    #[test]
    fn any_bytes(payload: Vec<u8>) {
        prop_assert_eq!(find(&payload), Found::Missing);
    }

    /// Fragments of magics and alphabet in any order: no panic, no stamp.
    #[test]
    fn fragments(payload in "(isc1|isc1\\.|isc|[A-Za-z0-9_-]{0,70}|\\.){0,40}") {
        prop_assert!(!matches!(find(payload.as_bytes()), Found::Stamp(_)));
    }

    /// False starts before a stamp do not hide it.
    #[test]
    fn false_starts(stamp in stamp(), starts in "(isc1|isc1\\.|isc1\\.[A-Za-z0-9_-]{64}){0,10}") {
        for form in [text(&stamp), bytes(&stamp)] {
            prop_assert_eq!(find(&[starts.as_bytes(), &form].concat()), Found::Stamp(stamp));
        }
    }

    /// A JSON platform may parse, wrap, reorder and write again.
    #[test]
    fn survives_json(stamp in stamp()) {
        let own = format!(r#"{{"isochrone":"{}","v":1}}"#, stamp.to_text());
        let mut value: serde_json::Value = serde_json::from_str(&own).unwrap();
        value["v"] = 2.into();
        let inner = serde_json::to_string_pretty(&serde_json::json!({ "a": [value], "b": "isc1." })).unwrap();
        prop_assert_eq!(find(inner.as_bytes()), Found::Stamp(stamp));
        let nested = serde_json::json!({ "payload": inner }).to_string();
        prop_assert_eq!(find(nested.as_bytes()), Found::Stamp(stamp));
    }
}

/// The layout, pinned: another version of either side must read it. The expected checksum is zlib's.
#[test]
fn layout() {
    let stamp = Stamp {
        domain: Domain(0x0102_0304),
        epoch: Epoch(0x1112_1314_1516_1718),
        sequence: 7,
        warmup: false,
        due: Reference(-2),
        sent: Reference(1_795_312_800_000_000_000),
        sent_monotonic: Monotonic(0x2122_2324_2526_2728),
    };
    let hex: String = stamp.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0102030411121314151617180000000000000007fffffffffffffffe18ea3b7ac8b6400021222324252627283417e668"
    );
    assert_eq!(
        stamp.to_text(),
        "isc1.AQIDBBESExQVFhcYAAAAAAAAAAf__________hjqO3rItkAAISIjJCUmJyg0F-Zo"
    );
    let warm = Stamp { warmup: true, ..stamp };
    assert_eq!(warm.encode()[..12], stamp.encode()[..12]);
    assert_eq!(warm.encode()[12..20], [0x80, 0, 0, 0, 0, 0, 0, 7]);
}

/// Mebibytes of false starts take a search linear in their length (this would not end if it were not).
#[test]
fn hostile_payload() {
    for piece in ["isc1.", "isc1", "isc1.AAAA", &format!("isc1.{}", "A".repeat(64))] {
        assert_eq!(find(piece.repeat((8 << 20) / piece.len()).as_bytes()), Found::Broken);
    }
}

/// A property holds a stamp, something else, or nothing.
#[test]
fn properties() {
    assert_eq!(from_property(b""), Found::Missing);
    assert_eq!(from_property(b"hello"), Found::Broken);
}
