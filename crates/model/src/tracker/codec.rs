//! A book as bytes. Times are differences to the row's, so that they stay short.

use std::collections::BTreeMap;

use crate::{
    entry::{MissingKind, get_byte, get_fixed, get_list, get_missing, get_range, put_missing, put_range},
    id::{DaemonId, Epoch},
    range::SeqRange,
    row::{Connects, ReceiptRow, Takeover},
    time::Reference,
    tracker::{
        BadBook, Book,
        given::{Given, GivenUp},
        point::Point,
        track::{End, Open, Track, Window},
    },
    varint::{get_bytes, get_i64, get_u64, put_bytes, put_i64, put_u64},
};

const VERSION: u8 = 1;

pub fn save(book: &Book) -> Vec<u8> {
    let mut out = vec![VERSION];
    let row = &book.row;
    let counts = [
        row.arrived,
        row.unique,
        row.duplicate,
        row.retained,
        row.unstamped,
        row.foreign,
        row.reordered,
    ];
    counts.into_iter().for_each(|count| put_u64(&mut out, count));
    put_i64(&mut out, row.saved_at.0);
    out.push(u8::from(row.closed) | u8::from(book.deaf) << 1);
    if row.connects == Connects::default() {
        put_bytes(&mut out, b"");
    } else {
        put_bytes(&mut out, &serde_json::to_vec(&row.connects).unwrap_or_default());
    }
    put_u64(&mut out, row.takeovers.len() as u64);
    for takeover in &row.takeovers {
        out.extend_from_slice(&takeover.by.0.to_le_bytes());
        put_i64(&mut out, takeover.at.0);
    }
    let base = row.saved_at.0;
    put_window(&mut out, book.window, base);
    put_u64(&mut out, book.tracks.len() as u64);
    for track in &book.tracks {
        put_track(&mut out, track, base);
    }
    out
}

pub fn load(bytes: &[u8]) -> Result<Book, BadBook> {
    let Some((&VERSION, mut input)) = bytes.split_first() else {
        return Err(BadBook("it is empty or of another version"));
    };
    let book = get_book(&mut input).ok_or(BadBook("it is cut short or garbled"))?;
    if input.is_empty() {
        Ok(book)
    } else {
        Err(BadBook("bytes follow its end"))
    }
}

fn get_book(input: &mut &[u8]) -> Option<Book> {
    let mut row = ReceiptRow {
        arrived: get_u64(input)?,
        unique: get_u64(input)?,
        duplicate: get_u64(input)?,
        retained: get_u64(input)?,
        unstamped: get_u64(input)?,
        foreign: get_u64(input)?,
        reordered: get_u64(input)?,
        saved_at: Reference(get_i64(input)?),
        ..ReceiptRow::default()
    };
    let flags = get_byte(input)?;
    row.closed = flags & 1 != 0;
    let connects = get_bytes(input)?;
    if !connects.is_empty() {
        row.connects = serde_json::from_slice(connects).ok()?;
    }
    row.takeovers = get_list(input, |input| {
        Some(Takeover {
            by: DaemonId(u64::from_le_bytes(get_fixed(input)?)),
            at: Reference(get_i64(input)?),
        })
    })?;
    let base = row.saved_at.0;
    let window = get_window(input, base)?;
    let tracks = get_list(input, |input| get_track(input, base))?;
    let mut book = Book {
        row,
        window,
        deaf: flags & 2 != 0,
        ..Book::default()
    };
    for track in tracks {
        if book.index.insert(track.epoch, book.tracks.len()).is_some() {
            return None;
        }
        book.tracks.push(track);
    }
    Some(book)
}

fn put_track(out: &mut Vec<u8>, track: &Track, base: i64) {
    out.extend_from_slice(&track.epoch.0.to_le_bytes());
    put_u64(out, track.frontier);
    put_i64(out, track.frontier.wrapping_sub(track.top) as i64);
    put_u64(out, track.unique);
    put_window(out, track.window, base);
    put_point(out, track.first, base);
    put_point(out, track.highest, base);
    put_point(out, track.began, base);
    put_i64(out, track.last_arrival.0.wrapping_sub(base));
    out.push(track.end.map_or(0, |end| if end.is_final { 1 } else { 2 }));
    if let Some(end) = track.end {
        put_u64(out, end.total);
        put_i64(out, end.at.0.wrapping_sub(base));
        put_point(out, end.last, base);
    }
    put_u64(out, track.open.len() as u64);
    let mut after = 0;
    for (&first, open) in &track.open {
        put_range(out, SeqRange { first, last: open.last }, after);
        after = open.last;
        put_i64(out, open.since.0.wrapping_sub(base));
        put_window(out, open.window, base);
        put_point(out, open.below, base);
        put_point(out, open.above, base);
    }
    let given = &track.given;
    for count in [given.lost, given.unrecorded, given.unheard, given.forgotten_ranges] {
        put_u64(out, count);
    }
    let ranges = given.ranges(track.epoch);
    for list in [&ranges, &track.early] {
        put_u64(out, list.len() as u64);
        list.iter().for_each(|missing| put_missing(out, missing, base));
    }
}

fn get_track(input: &mut &[u8], base: i64) -> Option<Track> {
    let epoch = Epoch(u64::from_le_bytes(get_fixed(input)?));
    let frontier = get_u64(input)?;
    let mut track = Track {
        frontier,
        top: frontier.wrapping_sub(get_i64(input)? as u64),
        unique: get_u64(input)?,
        window: get_window(input, base)?,
        first: get_point(input, base)?,
        highest: get_point(input, base)?,
        began: get_point(input, base)?,
        last_arrival: get_time(input, base)?,
        ..Track::new(epoch, None)
    };
    let end = get_byte(input)?;
    if end != 0 {
        let (total, at) = (get_u64(input)?, get_time(input, base)?);
        track.end = Some(End {
            total,
            at,
            last: get_point(input, base)?,
            is_final: end == 1,
        });
    }
    let mut after = 0;
    let open = get_list(input, |input| {
        let range = get_range(input, after)?;
        after = range.last;
        let since = get_time(input, base)?;
        let window = get_window(input, base)?;
        let (below, above) = (get_point(input, base)?, get_point(input, base)?);
        Some((
            range.first,
            Open {
                last: range.last,
                since,
                window,
                below,
                above,
            },
        ))
    })?;
    // Ranges that overlap, or reach beyond what was seen, would make counts that do not fit.
    let ordered = open.windows(2).all(|pair| pair[0].1.last < pair[1].0);
    if !ordered || open.last().is_some_and(|(_, open)| open.last >= frontier) {
        return None;
    }
    track.open = open.into_iter().collect();
    let [lost, unrecorded, unheard] = [get_u64(input)?, get_u64(input)?, get_u64(input)?];
    let forgotten_ranges = get_u64(input)?;
    let ranges = get_list(input, |input| get_missing(input, epoch, base))?;
    track.early = get_list(input, |input| get_missing(input, epoch, base))?;
    if !ranges.windows(2).all(|pair| pair[0].range.last < pair[1].range.first) {
        return None;
    }
    let given = |missing: &crate::entry::Missing| {
        (
            missing.range.first,
            Given {
                last: missing.range.last,
                kind: missing.kind,
                due: missing.due,
            },
        )
    };
    let remembered: BTreeMap<u64, Given> = ranges.iter().map(given).collect();
    track.given = GivenUp {
        lost,
        unrecorded,
        unheard,
        remembered,
        forgotten_ranges,
    };
    Some(track)
}

/// One byte when there is none.
fn put_window(out: &mut Vec<u8>, window: Option<Window>, base: i64) {
    let Some(window) = window else {
        return out.push(0);
    };
    let kind = match window.kind {
        MissingKind::Unrecorded => 1,
        MissingKind::Unheard => 2,
        MissingKind::Lost => 3,
    };
    out.push(kind | u8::from(window.until.is_some()) << 2);
    if let Some(until) = window.until {
        put_i64(out, until.0.wrapping_sub(base));
    }
}

fn get_window(input: &mut &[u8], base: i64) -> Option<Option<Window>> {
    let flags = get_byte(input)?;
    let kind = match flags & 3 {
        0 => return Some(None),
        1 => MissingKind::Unrecorded,
        2 => MissingKind::Unheard,
        _ => MissingKind::Lost,
    };
    let until = if flags & 4 != 0 {
        Some(get_time(input, base)?)
    } else {
        None
    };
    Some(Some(Window { kind, until }))
}

fn put_point(out: &mut Vec<u8>, point: Option<Point>, base: i64) {
    out.push(u8::from(point.is_some()));
    if let Some(point) = point {
        put_u64(out, point.sequence);
        put_i64(out, point.due.0.wrapping_sub(base));
        put_i64(out, point.sent.0.wrapping_sub(point.due.0));
    }
}

fn get_point(input: &mut &[u8], base: i64) -> Option<Option<Point>> {
    if get_byte(input)? == 0 {
        return Some(None);
    }
    let sequence = get_u64(input)?;
    let due = get_time(input, base)?;
    let sent = Reference(due.0.wrapping_add(get_i64(input)?));
    Some(Some(Point { sequence, due, sent }))
}

fn get_time(input: &mut &[u8], base: i64) -> Option<Reference> {
    Some(Reference(base.wrapping_add(get_i64(input)?)))
}
