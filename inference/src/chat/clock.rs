//! The date that templates may ask for with `strftime_now`, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// What the time is. Tests and re-execution fix it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The system's clock.
    System,
    /// Always the same second since 1970.
    Fixed(u64),
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const DAY_SECONDS: u64 = 86_400;

impl Clock {
    fn seconds(self) -> u64 {
        match self {
            Clock::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            Clock::Fixed(seconds) => seconds,
        }
    }

    /// The time in the C library's notation. Directives that are not understood stay as they are.
    pub(super) fn format(self, format: &str) -> String {
        let now = self.seconds();
        let date = Date::of_day(now / DAY_SECONDS);
        let (hour, minute, second) = (now / 3600 % 24, now / 60 % 60, now % 60);
        let mut text = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let mut directive = chars.next();
            let is_plain = directive == Some('-');
            if is_plain {
                directive = chars.next();
            }
            let number = |value: u64| if is_plain { value.to_string() } else { format!("{value:02}") };
            text += &match directive {
                Some('Y') => date.year.to_string(),
                Some('y') => number(date.year % 100),
                Some('m') => number(date.month),
                Some('d') => number(date.day),
                Some('e') => format!("{:2}", date.day),
                Some('H') => number(hour),
                Some('I') => number((hour + 11) % 12 + 1),
                Some('M') => number(minute),
                Some('S') => number(second),
                Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
                Some('B') => date.month_name().to_owned(),
                Some('b') => date.month_name()[..3].to_owned(),
                Some('A') => date.day_name().to_owned(),
                Some('a') => date.day_name()[..3].to_owned(),
                Some('%') => "%".to_owned(),
                Some(other) => format!("%{other}"),
                None => "%".to_owned(),
            };
        }
        text
    }
}

struct Date {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// Days since 1970-01-01, a Thursday.
    number: u64,
}

impl Date {
    /// The proleptic Gregorian date of a day since 1970-01-01. Years are counted from March, so that the leap day is last.
    fn of_day(number: u64) -> Date {
        const ERA_DAYS: u64 = 146_097; // 400 years
        let days = number + 719_468; // since 0000-03-01
        let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
        let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Date { year, month, day: day_of_year - (153 * march_month + 2) / 5 + 1, number }
    }

    fn month_name(&self) -> &'static str {
        let index = usize::try_from(self.month - 1).expect("1 to 12");
        MONTHS[index]
    }

    fn day_name(&self) -> &'static str {
        let index = usize::try_from(self.number % 7).expect("below 7");
        DAYS[index]
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // date -u -d @SECONDS '+%Y-%m-%d %H:%M:%S %A %b'
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 Thursday Jan"),
            (951_782_399, "2000-02-28 23:59:59 Monday Feb"),
            (951_782_400, "2000-02-29 00:00:00 Tuesday Feb"),
            (1_735_689_599, "2024-12-31 23:59:59 Tuesday Dec"),
            (4_107_542_400, "2100-03-01 00:00:00 Monday Mar"),
        ] {
            assert_eq!(Clock::Fixed(seconds).format("%Y-%m-%d %H:%M:%S %A %b"), expected);
        }
        assert_eq!(Clock::Fixed(951_782_400).format("%-d %B %y, %I %p 100%% %Q %"), "29 February 00, 12 AM 100% %Q %");
    }
}
