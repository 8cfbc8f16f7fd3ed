//! Dates for reports.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date in UTC, as `2026-11-21`.
#[must_use]
pub fn today() -> String {
    date(SystemTime::now())
}

/// The date and the minute in UTC, as `2026-11-21 23:59`.
#[must_use]
pub fn now() -> String {
    stamp(seconds(SystemTime::now()))
}

/// A point in time as `2026-11-21`, in UTC.
#[must_use]
pub fn date(time: SystemTime) -> String {
    let mut text = stamp(seconds(time));
    text.truncate(text.len() - " 00:00".len());
    text
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Year, month, day, hour and minute of a Unix time (UTC, Gregorian calendar).
fn stamp(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (rest / 3600, rest % 3600 / 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_078_099_200, "2004-03-01 00:00"),
            (4_107_542_400, "2100-03-01 00:00"),
            (1_798_761_599, "2026-12-31 23:59"),
        ] {
            assert_eq!(stamp(seconds), expected);
            let time = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            assert_eq!(date(time), expected[..10]);
        }
    }
}
