//! Payloads: compiled once, rendered for each message; what varies is a pure function of seed, device and sequence.

mod compile;
mod fill;
mod json;
mod random;
mod size;

use std::sync::Arc;

pub use size::SizeSpec;

use self::{fill::Fill, random::Draw};
use crate::{
    random::{Random, mix, seed_for},
    stamp::Stamp,
};

/// Where the stamp travels (ISOCHRONE_STAMP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StampPlace {
    /// As text in the payload.
    #[default]
    Text,
    /// As bytes in the payload.
    Bytes,
    /// In a message property or header named `isochrone`.
    Property,
}

/// A compiled payload template.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    place: StampPlace,
    segments: Vec<Segment>,
    size: Option<SizeSpec>,
    /// Device and run are escaped as in a JSON string.
    json: bool,
}

/// What varies a payload between devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSeed {
    /// The device's name; it varies what is random.
    pub device: Arc<str>,
    /// The run's name.
    pub run: Arc<str>,
    /// ISOCHRONE_SEED.
    pub seed: u64,
}

/// A piece of a payload, in order.
#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(Vec<u8>),
    Stamp,
    Device,
    Run,
    Sequence,
    Random(Draw),
    /// Takes what the size leaves.
    Fill(Fill),
}

/// Why a template is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// A name that means nothing.
    #[error(
        "unknown {{{{{0}}}}}; known are {{{{stamp}}}}, {{{{device}}}}, {{{{run}}}}, {{{{seq}}}}, {{{{random …}}}}, {{{{pad}}}} and {{{{braces}}}} for two opening braces"
    )]
    Unknown(String),
    /// Opening braces that are never closed.
    #[error("{{{{ at byte {0} is never closed by }}}}; two opening braces of your own are written {{{{braces}}}}")]
    Unclosed(usize),
    /// Arguments of `random` that mean nothing.
    #[error("{{{{random {0}}}}} is none of {known}", known = random::KNOWN)]
    Random(String),
    /// More than one place for the stamp.
    #[error("{{{{stamp}}}} stands more than once")]
    TwoStamps,
    /// More than one place for the padding.
    #[error("{{{{pad}}}} stands more than once")]
    TwoPads,
    /// `{{pad}}` without a size to pad to.
    #[error("{{{{pad}}}} needs a size: set ISOCHRONE_PAYLOAD_SIZE")]
    PadWithoutSize,
    /// No place for the stamp.
    #[error("no place for the stamp: the payload is no JSON object and has no {{{{stamp}}}}")]
    NoStamp,
    /// A place for the stamp that travels elsewhere.
    #[error("{{{{stamp}}}} has no meaning while ISOCHRONE_STAMP is property")]
    StampElsewhere,
    /// The size is below what the rest needs.
    #[error("a size of {size} is too small: {needed} bytes are needed, {stamp} of them for the stamp")]
    TooSmall {
        /// What was asked for at least, in bytes.
        size: u64,
        /// What all but the padding takes at least, in bytes.
        needed: u64,
        /// What the stamp takes.
        stamp: usize,
    },
}

impl Payload {
    /// The payload where none is set.
    pub fn default_template(place: StampPlace) -> &'static [u8] {
        match place {
            StampPlace::Text => br#"{"isochrone":"{{stamp}}"}"#,
            StampPlace::Bytes => b"{{stamp}}",
            StampPlace::Property => br#"{"seq":{{seq}}}"#,
        }
    }

    /// Compiles a template.
    ///
    /// Without `{{stamp}}` a JSON object gets a first field `isochrone` (stamp as text); bytes go in front. Without `{{pad}}` what a size leaves goes to
    /// the end: for a JSON object into a last field `pad`, or spaces where that is too long. A size drawn below what the rest needs is raised to that;
    /// one that is always below is an error.
    pub fn compile(template: &[u8], place: StampPlace, size: Option<SizeSpec>) -> Result<Payload, BadPayload> {
        compile::compile(template, place, size)
    }

    /// Whether the size is enough for this device: its name and the run's are known only now.
    ///
    /// # Errors
    /// [`BadPayload::TooSmall`].
    pub fn check(&self, device: &DeviceSeed) -> Result<(), BadPayload> {
        let bytes = |name: &str| {
            let mut out = Vec::new();
            self.put_name(name, &mut out);
            out.len()
        };
        compile::check_size(self, bytes(&device.device), bytes(&device.run))
    }

    /// Appends the payload of message `sequence` of a device to `out`. Returns where in `out` the area kept free for the stamp begins
    /// ([`stamp_len`](Self::stamp_len) bytes, a placeholder for now); `None` when the stamp travels in a property.
    pub fn render(&self, device: &DeviceSeed, sequence: u64, out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        let (mut stamp, mut fill) = (None, None);
        let mut random = None;
        for segment in &self.segments {
            match segment {
                Segment::Literal(bytes) => out.extend_from_slice(bytes),
                Segment::Stamp => {
                    stamp = Some(out.len());
                    out.resize(out.len() + self.stamp_len(), b'-');
                }
                Segment::Device => self.put_name(&device.device, out),
                Segment::Run => self.put_name(&device.run, out),
                Segment::Sequence => fill::put_number(sequence, out),
                Segment::Random(draw) => draw.put(random.get_or_insert_with(|| device.random(sequence)), out),
                Segment::Fill(kind) => fill = Some((out.len(), *kind)),
            }
        }
        if let (Some((at, kind)), Some(size)) = (fill, self.size) {
            let target = size.draw(|| Random::new(mix(device.random(sequence).bits(), SIZE)));
            let missing = usize::try_from(target)
                .unwrap_or(usize::MAX)
                .saturating_sub(out.len() - start);
            kind.insert(at, missing, out);
            stamp = stamp.map(|stamp| if stamp >= at { stamp + missing } else { stamp });
        }
        stamp
    }

    /// Bytes of the area kept free for the stamp; 0 when it travels in a property.
    pub fn stamp_len(&self) -> usize {
        match self.place {
            StampPlace::Text => Stamp::TEXT_LEN,
            StampPlace::Bytes => Stamp::BYTES_LEN,
            StampPlace::Property => 0,
        }
    }

    /// Where the stamp travels.
    pub fn place(&self) -> StampPlace {
        self.place
    }

    /// True when all messages of one device are the same but for the stamp: rendered once, it serves them all.
    pub fn is_constant(&self) -> bool {
        let varies = |segment: &Segment| matches!(segment, Segment::Sequence | Segment::Random(_));
        let size_varies = matches!(self.size, Some(SizeSpec::Gauss(..) | SizeSpec::Uniform(..)));
        !size_varies && !self.segments.iter().any(varies)
    }

    fn put_name(&self, name: &str, out: &mut Vec<u8>) {
        if self.json {
            json::put_escaped(name, out)
        } else {
            out.extend_from_slice(name.as_bytes())
        }
    }
}

/// Tells the numbers that draw a size from those in the text.
const SIZE: u64 = 0x73697a65;

impl DeviceSeed {
    fn random(&self, sequence: u64) -> Random {
        Random::new(mix(seed_for(self.seed, &self.device), sequence))
    }
}
