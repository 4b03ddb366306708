//! Payloads are as asked, valid where they were valid, and the same for the same seed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use isochrone_model::{
    id::{Domain, Epoch},
    payload::{BadPayload, DeviceSeed, Payload, SizeSpec, StampPlace},
    stamp::{Found, Stamp, find},
    time::{Monotonic, Reference},
};
use proptest::prelude::*;
use serde_json::Value;

const STAMP: Stamp = Stamp {
    domain: Domain(1),
    epoch: Epoch(2),
    sequence: 3,
    warmup: false,
    due: Reference(4),
    sent: Reference(5),
    sent_monotonic: Monotonic(6),
};

fn device(name: &str) -> DeviceSeed {
    DeviceSeed {
        device: name.into(),
        run: Arc::from("r1"),
        seed: 42,
    }
}

fn compile(template: &str, size: Option<&str>) -> Payload {
    Payload::compile(
        template.as_bytes(),
        StampPlace::Text,
        size.map(|size| size.parse().unwrap()),
    )
    .unwrap()
}

/// Rendered behind something else, with the stamp written into its place.
fn stamped(payload: &Payload, device: &DeviceSeed, sequence: u64) -> Vec<u8> {
    let mut out = b"before".to_vec();
    if let Some(at) = payload.render(device, sequence, &mut out) {
        let area = &mut out[at..at + payload.stamp_len()];
        match payload.place() {
            StampPlace::Text => STAMP.write_text(area),
            StampPlace::Bytes => STAMP.write_bytes(area),
            StampPlace::Property => unreachable!(),
        }
    }
    out.split_off(6)
}

fn json(payload: &Payload, device: &DeviceSeed, sequence: u64) -> Value {
    let bytes = stamped(payload, device, sequence);
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)))
}

proptest! {
    /// Any JSON object keeps its fields, gets the stamp, and has the size asked for, byte by byte.
    #[test]
    fn json_objects(fields in prop::collection::btree_map("[a-z\"\\\\]{0,6}", "[^{}]{0,8}", 0..4), size in 85..600_u64, spaces in " {0,2}") {
        let object = format!("{spaces}{}{spaces}", serde_json::to_string(&fields).unwrap());
        let plain = compile(&object, None);
        let needed = stamped(&plain, &device("d"), 0).len() as u64;
        let padded = Payload::compile(object.as_bytes(), StampPlace::Text, Some(SizeSpec::Fixed(size)));
        prop_assert_eq!(padded.is_err(), size < needed);
        for payload in [Ok(plain), padded].into_iter().flatten() {
            let bytes = stamped(&payload, &device("d"), 7);
            prop_assert_eq!(find(&bytes), Found::Stamp(STAMP));
            let mut value: serde_json::Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(value.remove("isochrone"), Some(Value::String(STAMP.to_text())));
            if !fields.contains_key("pad") {
                value.remove("pad");
            }
            prop_assert_eq!(serde_json::to_value(&fields).unwrap(), Value::Object(value));
        }
        if let Ok(payload) = Payload::compile(object.as_bytes(), StampPlace::Text, Some(SizeSpec::Fixed(size))) {
            prop_assert_eq!(stamped(&payload, &device("d"), 7).len() as u64, size);
        }
    }

    /// Same seed, device and sequence: same bytes, whatever was rendered before. Another of the three: others.
    #[test]
    fn pure(sequence: u64, seed: u64) {
        let payload = compile(r#"{"v":{{random int 0 1000000000000}},"t":"{{random text 9}}"}"#, Some("uniform(200,300)"));
        let device = DeviceSeed { seed, ..device("d1") };
        let bytes = stamped(&payload, &device, sequence);
        stamped(&payload, &device, sequence ^ 1);
        prop_assert_eq!(&bytes, &stamped(&payload, &device, sequence));
        prop_assert_ne!(&bytes, &stamped(&payload, &device, sequence ^ 1));
        prop_assert_ne!(&bytes, &stamped(&payload, &DeviceSeed { device: "d2".into(), ..device.clone() }, sequence));
        prop_assert_ne!(&bytes, &stamped(&payload, &DeviceSeed { seed: !seed, ..device }, sequence));
        prop_assert!((200..=300).contains(&bytes.len()));
    }

    /// No template makes the compiler panic, and what it takes can be rendered and is found.
    #[test]
    fn any_template(template in "([a-z\"{}: ,]|\\{\\{(stamp|device|seq|pad|random|random int 1 5|random bytes 3|braces)\\}\\}){0,12}", size in prop::option::of(0..200_u64)) {
        for place in [StampPlace::Text, StampPlace::Bytes, StampPlace::Property] {
            if let Ok(payload) = Payload::compile(template.as_bytes(), place, size.map(SizeSpec::Fixed)) {
                let bytes = stamped(&payload, &device("d"), 3);
                prop_assert!(place == StampPlace::Property || find(&bytes) == Found::Stamp(STAMP));
                prop_assert!(size.is_none_or(|size| bytes.len() as u64 == size));
            }
        }
    }

    /// Any bytes are a payload behind a stamp of bytes, or are refused.
    #[test]
    fn any_bytes(template: Vec<u8>) {
        if let Ok(payload) = Payload::compile(&template, StampPlace::Bytes, None) {
            prop_assert_eq!(find(&stamped(&payload, &device("d"), 0)), Found::Stamp(STAMP));
        }
    }
}

#[test]
fn defaults() {
    for place in [StampPlace::Text, StampPlace::Bytes, StampPlace::Property] {
        let payload = Payload::compile(Payload::default_template(place), place, None).unwrap();
        let bytes = stamped(&payload, &device("d"), 12);
        let found = if place == StampPlace::Property {
            Found::Missing
        } else {
            Found::Stamp(STAMP)
        };
        assert_eq!(find(&bytes), found);
        assert!(bytes.len() <= 100, "{} bytes", bytes.len());
    }
    assert!(compile(r#"{"isochrone":"{{stamp}}"}"#, Some("100")).is_constant());
}

#[test]
fn names_and_numbers() {
    let payload = compile(
        r#"{"id":"{{device}}","run":"{{ run }}","n":{{seq}},"at":{"s":"{{stamp}}"}}"#,
        None,
    );
    let value = json(&payload, &device(r#"a"\b"#), 18_446_744_073_709_551_615);
    assert_eq!(value["id"], r#"a"\b"#, "escaped as JSON asks");
    assert_eq!(value["run"], "r1");
    assert_eq!(value["n"], u64::MAX);
    assert_eq!(value["at"]["s"], STAMP.to_text());
    assert!(value.get("isochrone").is_none(), "the template has a place of its own");
    let plain = compile("{{device}} {{stamp}} {{braces}}x}}", None);
    assert!(
        String::from_utf8(stamped(&plain, &device("\"q\""), 0))
            .unwrap()
            .starts_with("\"q\" isc1.")
    );
    assert!(stamped(&plain, &device("d"), 0).ends_with(b" {{x}}"));
}

#[test]
fn random_values() {
    let template = r#"{"i":{{random int -5 5}},"f":{{random float 15 30 1}},"g":{{random gauss 20 2}},"h":"{{random hex 8}}",
        "t":"{{random text 12}}","b":{{random bool}},"u":"{{random uuid}}","p":"{{random pick red green}}"}"#;
    let payload = compile(template, None);
    let mut seen = std::collections::BTreeSet::new();
    for sequence in 0..500 {
        let value = json(&payload, &device("d"), sequence);
        let number = |name: &str| value[name].as_f64().unwrap();
        let text = |name: &str| value[name].as_str().unwrap();
        assert!((-5.0..=5.0).contains(&number("i")) && (15.0..=30.0).contains(&number("f")));
        assert!((5.0..35.0).contains(&number("g")));
        assert!(text("h").len() == 8 && text("t").len() == 12 && value["b"].is_boolean());
        assert!(
            text("u").len() == 36 && text("u").as_bytes()[14] == b'4' && b"89ab".contains(&text("u").as_bytes()[19])
        );
        seen.extend([text("p").to_owned(), value["i"].to_string(), value["b"].to_string()]);
    }
    assert_eq!(seen.len(), 2 + 11 + 2, "every choice is drawn: {seen:?}");
}

#[test]
fn pads() {
    let long = compile(r#"{"a":"{{pad}}","s":"{{stamp}}"}"#, Some("1KiB"));
    let bytes = stamped(&long, &device("d"), 0);
    assert_eq!(bytes.len(), 1024);
    assert_eq!(
        json(&long, &device("d"), 0)["a"].as_str().unwrap().len(),
        1024 - 69 - 15
    );
    let own = compile(r#"{"pad":1}"#, Some("120"));
    assert_eq!(
        json(&own, &device("d"), 0)["pad"],
        1,
        "a field of that name is left alone"
    );
    assert_eq!(stamped(&own, &device("d"), 0).len(), 120);
    let text = compile("t={{stamp}};", Some("90"));
    assert!(stamped(&text, &device("d"), 0).ends_with(b";xxxxxxxxxxxxxxxxxx"));
    let alone = Payload::compile(b"{}", StampPlace::Property, Some(SizeSpec::Fixed(30))).unwrap();
    assert_eq!(json(&alone, &device("d"), 0)["pad"].as_str().unwrap().len(), 20);
}

#[test]
fn sizes_drawn() {
    let payload = compile("{}", Some("gauss(200,20)"));
    assert!(!payload.is_constant());
    let sizes: Vec<f64> = (0..2_000)
        .map(|sequence| stamped(&payload, &device("d"), sequence).len() as f64)
        .collect();
    let mean = sizes.iter().sum::<f64>() / 2_000.0;
    let deviation = (sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / 2_000.0).sqrt();
    assert!(
        (mean - 200.0).abs() < 2.0 && (deviation - 20.0).abs() < 2.0,
        "{mean} {deviation}"
    );
    let narrow = compile("{}", Some("gauss(90,50)"));
    assert!(
        (0..500).all(|sequence| stamped(&narrow, &device("d"), sequence).len() >= 85),
        "raised to what is needed"
    );
}

#[test]
fn faults_are_named() {
    let bad = |template: &str, place, size: Option<&str>| {
        Payload::compile(template.as_bytes(), place, size.map(|size| size.parse().unwrap())).unwrap_err()
    };
    let text = StampPlace::Text;
    assert_eq!(bad("hello", text, None), BadPayload::NoStamp);
    assert_eq!(bad("[1]", text, None), BadPayload::NoStamp);
    assert_eq!(bad(r#"{"a":}"#, text, None), BadPayload::NoStamp);
    assert_eq!(bad("{{stamp}}{{stamp}}", text, None), BadPayload::TwoStamps);
    assert_eq!(bad("{{stamp}}", StampPlace::Property, None), BadPayload::StampElsewhere);
    assert_eq!(bad("{{stamp}}{{pad}}", text, None), BadPayload::PadWithoutSize);
    assert_eq!(bad("{{stamp}}{{pad}}{{pad}}", text, Some("100")), BadPayload::TwoPads);
    assert_eq!(bad("ab{{stamp", text, None), BadPayload::Unclosed(2));
    assert_eq!(
        bad("{}", text, Some("84")),
        BadPayload::TooSmall {
            size: 84,
            needed: 85,
            stamp: 69
        }
    );
    assert_eq!(
        bad("{}", text, Some("uniform(64,1024)")),
        BadPayload::TooSmall {
            size: 64,
            needed: 85,
            stamp: 69
        }
    );
    assert!(
        bad("{{stmp}}", text, None)
            .to_string()
            .starts_with("unknown {{stmp}}; known are {{stamp}}, {{device}}")
    );
    let random = bad("{{random int 5 1}}", text, None).to_string();
    assert!(
        random.starts_with("{{random int 5 1}} is none of random int LOW HIGH, float"),
        "{random}"
    );
    let small = bad("{}", text, Some("50")).to_string();
    assert_eq!(
        small,
        "a size of 50 is too small: 85 bytes are needed, 69 of them for the stamp"
    );
}

/// A size that a device's own name does not fit into is an error before its first message, escapes included.
#[test]
fn a_size_too_small_for_the_name_is_said() {
    let payload = compile(r#"{"device":"{{device}}","run":"{{run}}"}"#, Some("120"));
    assert_eq!(payload.check(&device("short")), Ok(()));
    for name in ["a-very-long-name".repeat(2), "\"\\\"\\".repeat(5)] {
        let (mut out, seed) = (Vec::new(), device(&name));
        payload.render(&seed, 0, &mut out);
        let needed = out.len() as u64;
        assert!(needed > 120, "{needed}");
        let stamp = Stamp::TEXT_LEN;
        assert_eq!(
            payload.check(&seed),
            Err(BadPayload::TooSmall {
                size: 120,
                needed,
                stamp
            })
        );
    }
}
