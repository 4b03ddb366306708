//! A run and its roster as a pure state machine.

use std::collections::{BTreeMap, btree_map::Entry};

use isochrone_model::{
    id::{DaemonId, RunName},
    time::Reference,
};

use crate::{
    Error,
    partition::following,
    types::{Member, Note, OpenRun, Pins, Role, RunRecord, RunState},
};

/// A run's record and its members.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub(crate) record: RunRecord,
    members: BTreeMap<DaemonId, Member>,
    notes: BTreeMap<String, Note>,
    /// Notes that were only counted.
    omitted: u64,
    /// By daemons that could not keep them.
    omitted_by: BTreeMap<DaemonId, u64>,
}

impl Run {
    /// A run just opened.
    pub fn open(name: RunName, request: &OpenRun, now: Reference) -> Run {
        let record = RunRecord {
            run: name,
            pins: request.pins.clone(),
            state: RunState::Open,
            opened_at: now,
            closed_at: None,
            keep: request.keep,
            restored: false,
        };
        Run {
            record,
            members: BTreeMap::new(),
            notes: BTreeMap::new(),
            omitted: 0,
            omitted_by: BTreeMap::new(),
        }
    }

    /// Moves on to `to` if nothing stands against it; whether it stands there or past it.
    pub fn advance(&mut self, to: RunState, now: Reference) -> bool {
        if self.record.state >= to {
            return true;
        }
        let mut producers = self.members.values().filter(|member| member.role == Role::Producer);
        let begun = self.members.values().any(|member| member.role == Role::Producer);
        let waited_for = !begun && self.members.values().any(Member::stands);
        if self.record.state == RunState::Open && (waited_for || producers.any(Member::stands)) {
            return false;
        }
        self.record.state = to;
        if to == RunState::Closed {
            self.record.closed_at = Some(now);
        }
        true
    }

    /// Enters a daemon in the roster and gives it an ordinal.
    pub fn enlist(&mut self, daemon: DaemonId, role: Role, wish: Option<u32>, now: Reference) -> Result<u32, Error> {
        if let Some(member) = self.members.get(&daemon).filter(|member| member.stands()) {
            return Ok(member.ordinal);
        }
        if role == Role::Producer {
            self.record.must_be_open()?;
        }
        let taken = |ordinal: &u32| {
            let mut same_role = self
                .members
                .values()
                .filter(|member| member.role == role && member.stands());
            same_role.any(|member| member.ordinal == *ordinal)
        };
        let lowest = || {
            (0..=self.members.len() as u32)
                .find(|ordinal| !taken(ordinal))
                .unwrap_or_default()
        };
        let ordinal = wish.filter(|wish| !taken(wish)).unwrap_or_else(lowest);
        let before = self.members.get(&daemon).map_or(0, |member| member.counter);
        let joined = self.members.values().map(|member| member.joined).max();
        let counter = following(before.max(joined.unwrap_or(0)), now);
        let member = Member {
            daemon,
            role,
            ordinal,
            counter,
            joined: counter,
            ended: false,
            vanished: false,
        };
        self.members.insert(daemon, member);
        Ok(ordinal)
    }

    /// The daemon's last word.
    pub fn discharge(&mut self, daemon: DaemonId) {
        if let Some(member) = self.members.get_mut(&daemon) {
            member.ended = true;
            member.vanished = false;
        }
    }

    /// Marks a member whose counter still is `counter` as vanished.
    pub fn expel(&mut self, daemon: DaemonId, counter: u64) -> bool {
        match self.members.get_mut(&daemon) {
            Some(member) if member.counter == counter && !member.ended => {
                member.vanished = true;
                true
            }
            _ => false,
        }
    }

    /// Renews the daemon's row; whether it stood.
    pub fn renew(&mut self, daemon: DaemonId, now: Reference) -> bool {
        match self.members.get_mut(&daemon).filter(|member| member.stands()) {
            Some(member) => {
                member.counter = following(member.counter, now);
                true
            }
            None => false,
        }
    }

    /// Keeps what a daemon saw.
    pub fn note(&mut self, note: &Note) {
        let full = self.notes.len() >= Note::MOST;
        match self.notes.entry(note.key()) {
            Entry::Occupied(_) => {}
            Entry::Vacant(_) if full => self.omitted += 1,
            Entry::Vacant(place) => drop(place.insert(note.clone())),
        }
    }

    /// Counts what a daemon could not keep.
    pub fn omit(&mut self, daemon: DaemonId, total: u64) {
        let count = self.omitted_by.entry(daemon).or_default();
        *count = total.max(*count);
    }

    /// All notes, and how many were only counted.
    pub fn notes(&self) -> (Vec<Note>, u64) {
        let omitted = self.omitted + self.omitted_by.values().sum::<u64>();
        (self.notes.values().cloned().collect(), omitted)
    }

    /// All members.
    pub fn roster(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }
}

impl Member {
    /// It neither ended nor vanished.
    pub fn stands(&self) -> bool {
        !self.ended && !self.vanished
    }
}

impl RunRecord {
    /// Refuses by name what disagrees with the run's pins.
    pub fn must_agree(&self, ours: &Pins) -> Result<(), Error> {
        let theirs = &self.pins;
        let pairs = [
            ("schema version", ours.schema.to_string(), theirs.schema.to_string()),
            (
                "ISOCHRONE_PARTITIONS",
                ours.partitions.to_string(),
                theirs.partitions.to_string(),
            ),
            (
                "ISOCHRONE_CLAIM_UNIT",
                ours.claim_unit.clone(),
                theirs.claim_unit.clone(),
            ),
        ];
        for (setting, ours, theirs) in pairs {
            if ours != theirs {
                return Err(Error::Pins {
                    run: self.run.clone(),
                    setting,
                    ours,
                    theirs,
                });
            }
        }
        Ok(())
    }

    /// Refuses a run that no producer may join any more.
    pub fn must_be_open(&self) -> Result<(), Error> {
        let cause = match self.state {
            RunState::Open => return Ok(()),
            RunState::Draining => "draining: no producer may join",
            RunState::Closed => "closed: no producer may join",
        };
        Err(Error::Run {
            run: self.run.clone(),
            cause: cause.to_owned(),
        })
    }
}

/// A run's default name: the UTC time, `2026-01-31T12-00-00Z`; `attempt` above 1 is appended.
///
/// # Errors
/// A time that no name can be made of.
pub fn name_at(now: Reference, attempt: u32) -> Result<RunName, Error> {
    let seconds = now.0.div_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut name = format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}Z");
    if attempt > 1 {
        name.push_str(&format!("-{attempt}"));
    }
    name.parse().map_err(|_| Error::Corrupt {
        key: name,
        cause: "the store's clock names no run".to_owned(),
    })
}

/// Year, month and day of a day since 1970-01-01, by the proleptic Gregorian calendar: 400 years are 146,097 days, and
/// a year that starts in March ends with the leap day.
fn civil(days: i64) -> (i64, i64, i64) {
    let since_march_0000 = days + 719_468;
    let era = since_march_0000.div_euclid(146_097);
    let day_of_era = since_march_0000.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are the UTC time, leap days and the epoch included.
    #[test]
    fn names() {
        for (seconds, attempt, name) in [
            (0, 1, "1970-01-01T00-00-00Z"),
            (951_782_400, 1, "2000-02-29T00-00-00Z"),
            (1_769_860_800, 2, "2026-01-31T12-00-00Z-2"),
            (4_107_542_399, 1, "2100-02-28T23-59-59Z"),
        ] {
            assert_eq!(
                name_at(Reference(seconds * 1_000_000_000), attempt).unwrap().as_str(),
                name
            );
        }
    }
}
