//! `{{random …}}`: values drawn for each message.

use std::io::Write;

use super::fill::put_number;
use crate::random::Random;

/// What an error names as valid.
pub const KNOWN: &str = "random int LOW HIGH, float LOW HIGH [DIGITS], gauss MEAN DEVIATION [DIGITS], hex LENGTH, text LENGTH, bytes LENGTH, bool, uuid, pick A B …";

const HEX: &[u8] = b"0123456789abcdef";
const TEXT: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const LONGEST: usize = 1 << 20;
const MOST_DIGITS: usize = 17;

/// A kind of value.
#[derive(Clone, Debug, PartialEq)]
pub enum Draw {
    /// A whole number, both ends included.
    Int(i64, i64),
    /// A number of so many decimals.
    Float(f64, f64, usize),
    /// A number of a normal distribution.
    Gauss(f64, f64, usize),
    /// So many hexadecimal digits.
    Hex(usize),
    /// So many letters and digits.
    Text(usize),
    /// So many bytes of any value.
    Bytes(usize),
    /// `true` or `false`.
    Bool,
    /// Version 4 (RFC 9562).
    Uuid,
    /// One of these.
    Pick(Vec<String>),
}

impl Draw {
    /// Parses what follows `random`.
    pub fn parse(arguments: &str) -> Option<Draw> {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let length = |text: &str| text.parse().ok().filter(|length| (1..=LONGEST).contains(length));
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let digits = |text: Option<&&str>| match text {
            None => Some(2),
            Some(text) => text.parse().ok().filter(|digits| *digits <= MOST_DIGITS),
        };
        match words[..] {
            ["int", low, high] => {
                let (low, high) = (low.parse().ok()?, high.parse().ok()?);
                (low <= high).then_some(Draw::Int(low, high))
            }
            ["float", low, high, ref rest @ ..] if rest.len() < 2 => {
                let (low, high) = (number(low)?, number(high)?);
                (low <= high && (high - low).is_finite()).then_some(Draw::Float(low, high, digits(rest.first())?))
            }
            ["gauss", mean, deviation, ref rest @ ..] if rest.len() < 2 => {
                let deviation = number(deviation).filter(|deviation| *deviation >= 0.0)?;
                Some(Draw::Gauss(number(mean)?, deviation, digits(rest.first())?))
            }
            ["hex", text] => length(text).map(Draw::Hex),
            ["text", text] => length(text).map(Draw::Text),
            ["bytes", text] => length(text).map(Draw::Bytes),
            ["bool"] => Some(Draw::Bool),
            ["uuid"] => Some(Draw::Uuid),
            ["pick", ref choices @ ..] if !choices.is_empty() => {
                Some(Draw::Pick(choices.iter().map(|&choice| choice.to_owned()).collect()))
            }
            _ => None,
        }
    }

    /// Appends a value.
    pub fn put(&self, random: &mut Random, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        match self {
            Draw::Int(low, high) => {
                let value = random.between(*low, *high);
                if value < 0 {
                    out.push(b'-');
                }
                put_number(value.unsigned_abs(), out);
            }
            Draw::Float(low, high, digits) => {
                let _ = write!(out, "{:.digits$}", low + (high - low) * random.unit());
            }
            Draw::Gauss(mean, deviation, digits) => {
                let _ = write!(out, "{:.digits$}", mean + deviation * random.normal());
            }
            Draw::Hex(length) => put_of(HEX, *length, random, out),
            Draw::Text(length) => put_of(TEXT, *length, random, out),
            Draw::Bytes(length) => out.extend((0..*length).map(|_| random.bits() as u8)),
            Draw::Bool => out.extend_from_slice(if random.bits() & 1 == 0 { b"false" } else { b"true" }),
            Draw::Uuid => put_uuid(random, out),
            Draw::Pick(choices) => {
                let choice = choices.get(random.below(choices.len() as u64) as usize);
                out.extend_from_slice(choice.map_or(b"", |choice| choice.as_bytes()));
            }
        }
    }

    /// The fewest bytes a value takes.
    pub fn shortest(&self) -> usize {
        let decimals = |digits: usize| if digits == 0 { 1 } else { digits + 2 };
        match self {
            Draw::Int(..) => 1,
            Draw::Float(_, _, digits) | Draw::Gauss(_, _, digits) => decimals(*digits),
            Draw::Hex(length) | Draw::Text(length) | Draw::Bytes(length) => *length,
            Draw::Bool => 4,
            Draw::Uuid => 36,
            Draw::Pick(choices) => choices.iter().map(String::len).min().unwrap_or(0),
        }
    }

    /// Something that is valid wherever a value is: a number, or a word that is one only within quotes.
    pub fn sample(&self) -> &[u8] {
        match self {
            Draw::Int(..) | Draw::Float(..) | Draw::Gauss(..) => b"0",
            Draw::Bool => b"true",
            Draw::Pick(choices) => choices.first().map_or(b"", |choice| choice.as_bytes()),
            Draw::Hex(_) | Draw::Text(_) | Draw::Uuid => b"a",
            // No JSON holds any bytes.
            Draw::Bytes(_) => &[0],
        }
    }
}

fn put_of(alphabet: &[u8], length: usize, random: &mut Random, out: &mut Vec<u8>) {
    out.extend((0..length).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]));
}

fn put_uuid(random: &mut Random, out: &mut Vec<u8>) {
    let (high, low) = (random.bits(), random.bits());
    let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0x0fff | 0x4000);
    let (d, e) = (low >> 48 & 0x3fff | 0x8000, low & 0xffff_ffff_ffff);
    let _ = write!(out, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}");
}
