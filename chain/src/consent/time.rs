//! When a contract holds: a window of minutes, and the days on which it may begin. All of it is UTC.

use std::fmt;
use std::str::FromStr;

use borsh::io::{Error, ErrorKind, Read};
use borsh::{BorshDeserialize, BorshSerialize};

use super::refusal::{ConsentError, Refusal};
use crate::units::Timestamp;

const MINUTE_MS: u64 = 60_000;
/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// The names of days, Monday first.
const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// 1 January 1970 was a Thursday.
const FIRST_DAY: u64 = 3;

/// A minute of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub struct Minute(u16);

/// A window of minutes, both edges inside. Where it ends before it begins it goes over midnight and belongs to the day on
/// which it begins; where both are one minute it is the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Schedule {
    from: Minute,
    until: Minute,
}

/// A set of days of the week, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Days(u8);

/// A day of the week, Monday is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(u8);

/// On which day the window began that holds a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Began {
    Today,
    Yesterday,
}

impl Schedule {
    /// From the first minute of a day to its last.
    pub const ALWAYS: Schedule = Schedule { from: Minute(0), until: Minute(DAY_MINUTES - 1) };

    /// Whether a moment lies in a window that began on one of these days.
    pub fn admits(self, days: Days, at: Timestamp) -> Result<(), Refusal> {
        let (today, minute) = calendar(at);
        let day = match self.window(minute) {
            None => return Err(Refusal::Schedule { at: minute, schedule: self }),
            Some(Began::Today) => today,
            Some(Began::Yesterday) => Day((today.0 + 6) % 7),
        };
        if days.contains(day) { Ok(()) } else { Err(Refusal::Days { began: day, days }) }
    }

    fn window(self, minute: Minute) -> Option<Began> {
        let Schedule { from, until } = self;
        if from < until {
            return (from <= minute && minute <= until).then_some(Began::Today);
        }
        if from == until || minute >= from {
            return Some(Began::Today);
        }
        (minute <= until).then_some(Began::Yesterday)
    }
}

/// Day of the week and minute of the day.
fn calendar(at: Timestamp) -> (Day, Minute) {
    let minutes = at.get() / MINUTE_MS;
    let (days, minute) = (minutes / u64::from(DAY_MINUTES), minutes % u64::from(DAY_MINUTES));
    let small = "a remainder is below what divides";
    let day = u8::try_from((days % 7 + FIRST_DAY) % 7).expect(small);
    (Day(day), Minute(u16::try_from(minute).expect(small)))
}

impl Days {
    /// Every day.
    pub const ALL: Days = Days(0b111_1111);

    /// Whether a day is among them.
    pub fn contains(self, day: Day) -> bool {
        self.0 & (1 << day.0) != 0
    }

    /// The names of the days, Monday first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..7).map(Day).filter(move |day| self.contains(*day)).map(Day::name)
    }

    /// The days with these names: `mon` or `monday`, in any case.
    pub fn from_names<'n>(names: impl Iterator<Item = &'n str>) -> Result<Days, ConsentError> {
        let mut days = 0;
        for name in names {
            days |= 1 << Day::from_str(name)?.0;
        }
        if days == 0 { Err(ConsentError::Nothing { field: "days" }) } else { Ok(Days(days)) }
    }
}

impl Day {
    /// Its short name.
    pub fn name(self) -> &'static str {
        DAY_NAMES[usize::from(self.0)]
    }
}

impl FromStr for Day {
    type Err = ConsentError;

    fn from_str(text: &str) -> Result<Day, ConsentError> {
        const LONG: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        let name = text.trim().to_ascii_lowercase();
        let found = (0..7).zip(DAY_NAMES.iter().zip(LONG)).find(|(_, (short, long))| name == **short || name == *long);
        found.map(|(day, _)| Day(day)).ok_or_else(|| ConsentError::day(text))
    }
}

impl FromStr for Days {
    type Err = ConsentError;

    /// Names with commas; `mon-fri` stands for those between too, and `all` for every day.
    fn from_str(text: &str) -> Result<Days, ConsentError> {
        if text.trim().eq_ignore_ascii_case("all") {
            return Ok(Days::ALL);
        }
        let mut days = 0;
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (Day::from_str(first)?, Day::from_str(last)?);
            // From Saturday to Monday is over Sunday.
            let count = (last.0 + 7 - first.0) % 7;
            (0..=count).for_each(|step| days |= 1 << ((first.0 + step) % 7));
        }
        if days == 0 { Err(ConsentError::Nothing { field: "days" }) } else { Ok(Days(days)) }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Days::ALL {
            return f.write_str("every day");
        }
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Minute {
    type Err = ();

    fn from_str(text: &str) -> Result<Minute, ()> {
        let number = |text: &str, below: u16| {
            let is_two_digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|number| is_two_digits && *number < below).ok_or(())
        };
        let (hours, minutes) = text.trim().split_once(':').ok_or(())?;
        Ok(Minute(number(hours, 24)? * 60 + number(minutes, 60)?))
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl FromStr for Schedule {
    type Err = ConsentError;

    fn from_str(text: &str) -> Result<Schedule, ConsentError> {
        let fault = |_| ConsentError::schedule(text);
        let (from, until) = text.split_once('-').ok_or_else(|| ConsentError::schedule(text))?;
        Ok(Schedule { from: from.parse().map_err(fault)?, until: until.parse().map_err(fault)? })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.until)
    }
}

impl BorshDeserialize for Minute {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Minute, Error> {
        let minute = u16::deserialize_reader(reader)?;
        let fault = || Error::new(ErrorKind::InvalidData, format!("a day has no minute {minute}"));
        (minute < DAY_MINUTES).then_some(Minute(minute)).ok_or_else(fault)
    }
}

impl BorshDeserialize for Days {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Days, Error> {
        let days = u8::deserialize_reader(reader)?;
        let fault = || Error::new(ErrorKind::InvalidData, format!("{days:#b} is no set of days"));
        (1..=Days::ALL.0).contains(&days).then_some(Days(days)).ok_or_else(fault)
    }
}
