//! A producer's sequences: one for each record, counted modulo 2^31.

/// The sequence `records` further on; wraps to 0 after 2^31-1 (`DefaultRecordBatch.incrementSequence`).
pub(crate) fn advance(sequence: i32, records: i32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & 0x7fff_ffff) as i32
}

/// Records from sequence `from` to sequence `to`, modulo 2^31.
pub(crate) fn distance(from: i32, to: i32) -> i64 {
    (i64::from(to) - i64::from(from)) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_after_the_largest() {
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 4, 10), 5);
        assert_eq!(distance(i32::MAX - 4, 5), 10);
    }
}
