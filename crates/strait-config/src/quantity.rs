//! Times and sizes as people write them.

use std::time::Duration;

const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads `250ms`, `30s`, `10m`, `1h`, `1d`: a whole number and a unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    scaled(text, &TIME_UNITS).map(Duration::from_millis)
}

/// Reads `256MiB`, `1GiB`, `500MB`: a whole number and a unit.
pub fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZE_UNITS)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim_start();
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The shortest exact form [`parse_duration`] reads back; below a millisecond it is cut.
pub(crate) fn duration_text(value: Duration) -> String {
    let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    // Days and hours only when they are what was meant; 600 s reads better as 10m.
    unscaled(ms, &TIME_UNITS)
}

/// The shortest exact form [`parse_size`] reads back.
pub(crate) fn size_text(bytes: u64) -> String {
    unscaled(bytes, SIZE_UNITS.get(..4).unwrap_or(&SIZE_UNITS))
}

fn unscaled(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, scale): &&(&str, u64)| value != 0 && value.is_multiple_of(*scale);
    match units.iter().rev().find(fits) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        None => format!("{value}{}", units.first().map_or("", |(name, _)| name)),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration_text, parse_duration, parse_size, size_text};
    use std::time::Duration;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1 month",
            "99999999999999999999s",
            "9999999999999999d",
            "é",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for ms in [
            0, 1, 250, 1_000, 90_000, 600_000, 3_600_000, 86_400_000, 90_061_001,
        ] {
            let value = Duration::from_millis(ms);
            assert_eq!(parse_duration(&duration_text(value)), Some(value));
        }
        for bytes in [0, 1, 1_000, 1 << 10, 256 << 20, 3 << 30, (1 << 20) + 1] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }
        assert_eq!(duration_text(Duration::from_secs(600)), "10m");
        assert_eq!(size_text(256 << 20), "256MiB");
    }
}
