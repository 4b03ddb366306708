//! From the text of a template to its segments.

use super::{
    BadPayload, Payload, Segment, SizeSpec, StampPlace,
    fill::Fill,
    json::{self, Object},
    random::Draw,
};

pub fn compile(template: &[u8], place: StampPlace, size: Option<SizeSpec>) -> Result<Payload, BadPayload> {
    let mut segments = parse(template)?;
    let stamps = count(&segments, |segment| matches!(segment, Segment::Stamp));
    let pads = count(&segments, |segment| matches!(segment, Segment::Fill(_)));
    match (stamps, place) {
        (0 | 1, StampPlace::Text | StampPlace::Bytes) | (0, StampPlace::Property) => {}
        (1, StampPlace::Property) => return Err(BadPayload::StampElsewhere),
        _ => return Err(BadPayload::TwoStamps),
    }
    match (pads, size) {
        (0, _) | (1, Some(_)) => {}
        (1, None) => return Err(BadPayload::PadWithoutSize),
        _ => return Err(BadPayload::TwoPads),
    }
    let object = object(&segments);
    if size.is_some() && pads == 0 {
        add_fill(&mut segments, place, object.as_ref());
    }
    if stamps == 0 {
        add_stamp(&mut segments, place, object.as_ref())?;
    }
    let payload = Payload {
        place,
        segments,
        size,
        json: object.is_some(),
    };
    check_size(&payload, 1, 1)?;
    Ok(payload)
}

fn parse(template: &[u8]) -> Result<Vec<Segment>, BadPayload> {
    let mut segments = Vec::new();
    let mut rest = template;
    while let Some(open) = memchr::memmem::find(rest, b"{{") {
        let at = template.len() - rest.len() + open;
        let (before, after) = (&rest[..open], &rest[open + 2..]);
        let close = memchr::memmem::find(after, b"}}").ok_or(BadPayload::Unclosed(at))?;
        push_literal(&mut segments, before);
        let name = String::from_utf8_lossy(&after[..close]);
        match name.trim() {
            "braces" => push_literal(&mut segments, b"{{"),
            name => segments.push(slot(name)?),
        }
        rest = &after[close + 2..];
    }
    push_literal(&mut segments, rest);
    Ok(segments)
}

fn slot(name: &str) -> Result<Segment, BadPayload> {
    let (word, arguments) = name.split_once(char::is_whitespace).unwrap_or((name, ""));
    match (word, arguments) {
        ("random", arguments) => match Draw::parse(arguments) {
            Some(draw) => Ok(Segment::Random(draw)),
            None => Err(BadPayload::Random(arguments.trim().to_owned())),
        },
        ("stamp", "") => Ok(Segment::Stamp),
        ("device", "") => Ok(Segment::Device),
        ("run", "") => Ok(Segment::Run),
        ("seq", "") => Ok(Segment::Sequence),
        ("pad", "") => Ok(Segment::Fill(Fill::Letters)),
        _ => Err(BadPayload::Unknown(name.to_owned())),
    }
}

/// Appends to the literal before, so that neighbours are one.
fn push_literal(segments: &mut Vec<Segment>, bytes: &[u8]) {
    match segments.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Segment::Literal(before)) => before.extend_from_slice(bytes),
        _ => segments.push(Segment::Literal(bytes.to_vec())),
    }
}

/// The template as a JSON object: the offsets are those in the first and in the last segment.
fn object(segments: &[Segment]) -> Option<Object> {
    let mut sample = Vec::new();
    for segment in segments {
        match segment {
            Segment::Literal(bytes) => sample.extend_from_slice(bytes),
            Segment::Sequence => sample.push(b'0'),
            Segment::Random(draw) => sample.extend_from_slice(draw.sample()),
            Segment::Stamp | Segment::Device | Segment::Run | Segment::Fill(_) => sample.push(b'a'),
        }
    }
    let (Some(Segment::Literal(first)), Some(Segment::Literal(last))) = (segments.first(), segments.last()) else {
        return None;
    };
    json::object(first, last, &sample)
}

fn add_stamp(segments: &mut Vec<Segment>, place: StampPlace, object: Option<&Object>) -> Result<(), BadPayload> {
    match (place, object, segments.first_mut()) {
        (StampPlace::Property, ..) => {}
        (StampPlace::Bytes, ..) => segments.insert(0, Segment::Stamp),
        (StampPlace::Text, Some(object), Some(Segment::Literal(first))) => {
            let behind = first.split_off(object.first);
            first.extend_from_slice(br#""isochrone":""#);
            let close: &[u8] = if object.empty { br#"""# } else { br#"","# };
            segments.splice(1..1, [Segment::Stamp, Segment::Literal([close, &behind].concat())]);
        }
        (StampPlace::Text, ..) => return Err(BadPayload::NoStamp),
    }
    Ok(())
}

fn add_fill(segments: &mut Vec<Segment>, place: StampPlace, object: Option<&Object>) {
    match (object, segments.last_mut()) {
        (Some(object), Some(Segment::Literal(last))) => {
            let close = Segment::Literal(last.split_off(object.last));
            let fill = match object.has_pad {
                true => Fill::Spaces,
                // An object without a field gets the stamp's first.
                false => Fill::Field {
                    alone: object.empty && place != StampPlace::Text,
                },
            };
            segments.extend([Segment::Fill(fill), close]);
        }
        _ => segments.push(Segment::Fill(Fill::Letters)),
    }
}

/// Whether the size holds the shortest message of a device and a run whose names take so many bytes.
pub fn check_size(payload: &Payload, device: usize, run: usize) -> Result<(), BadPayload> {
    let stamp = payload.stamp_len();
    let shortest = |segment: &Segment| match segment {
        Segment::Literal(bytes) => bytes.len(),
        Segment::Stamp => stamp,
        Segment::Device => device,
        Segment::Run => run,
        Segment::Sequence => 1,
        Segment::Random(draw) => draw.shortest(),
        Segment::Fill(_) => 0,
    };
    let needed = payload.segments.iter().map(shortest).sum::<usize>() as u64;
    match payload.size.map(SizeSpec::least) {
        Some(size) if size < needed => Err(BadPayload::TooSmall { size, needed, stamp }),
        _ => Ok(()),
    }
}

fn count(segments: &[Segment], is: impl Fn(&Segment) -> bool) -> usize {
    segments.iter().filter(|segment| is(segment)).count()
}
