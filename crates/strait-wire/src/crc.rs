//! CRC-32C as a linear function: what a change of the first bytes does to the checksum of them all.
//!
//! A checksum is the remainder of a polynomial over GF(2). For two messages of the same length that differ only
//! in front, crc(A T) xor crc(B T) = (crc(A) xor crc(B)) * x^(8 |T|) mod P: the initial value and the final
//! inversion cancel. So the cost does not depend on |T|, and an error in T stays an error.

/// P of CRC-32C, the highest power in the lowest bit, as in the checksum itself.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;
/// The polynomial x^8: one byte further.
const BYTE: u32 = ONE >> 8;
/// Bytes of a `u32`, so of any length a batch can have.
const DIGITS: usize = 4;

/// `POWERS[d][v]` is x^(8 v 256^d) mod P: v in the d-th byte of a length.
static POWERS: [[u32; 256]; DIGITS] = powers();

/// a * b mod P.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= b & 0u32.wrapping_sub(a >> bit & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
    product
}

const fn powers() -> [[u32; 256]; DIGITS] {
    let mut table = [[ONE; 256]; DIGITS];
    let mut step = BYTE;
    let mut digit = 0;
    while digit < DIGITS {
        let mut value = 1;
        while value < 256 {
            table[digit][value] = multiply(table[digit][value - 1], step);
            value += 1;
        }
        step = multiply(table[digit][255], step);
        digit += 1;
    }
    table
}

/// `diff` * x^(8 n) mod P: at most one multiplication for each byte of `n`.
fn shift(mut diff: u32, n: u32) -> u32 {
    for (powers, digit) in POWERS.iter().zip(n.to_le_bytes()) {
        if digit != 0 {
            diff = multiply(diff, powers[usize::from(digit)]);
        }
    }
    diff
}

/// The checksum of `new` and a tail of `tail` bytes, where `crc` is that of `old` and the same tail. `old` and
/// `new` are of the same length. Whatever is wrong with `crc` is as wrong with the result.
pub(crate) fn replace_front(crc: u32, old: &[u8], new: &[u8], tail: usize) -> u32 {
    debug_assert_eq!(old.len(), new.len());
    // A batch's length is an INT32, so the tail's fits.
    crc ^ shift(
        crc32c::crc32c(old) ^ crc32c::crc32c(new),
        u32::try_from(tail).unwrap_or(u32::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tail: &[u8]) {
        let (old, new) = ([0x5a; 40], *b"forty bytes that stand for a new header.");
        let whole = |front: &[u8]| crc32c::crc32c_append(crc32c::crc32c(front), tail);
        assert_eq!(
            replace_front(whole(&old), &old, &new, tail.len()),
            whole(&new),
            "tail of {}",
            tail.len()
        );
    }

    #[test]
    fn a_patched_checksum_is_that_of_the_bytes() {
        let bytes: Vec<u8> = (0..5_000_011u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for size in 0..=4096 {
            check(&bytes[..size]);
        }
        for size in [
            65_535,
            65_536,
            65_537,
            1_000_000,
            1 << 20,
            (1 << 22) + 255,
            5_000_011,
        ] {
            check(&bytes[..size]);
        }
    }

    #[test]
    fn powers_agree_with_their_meaning() {
        let mut power = ONE;
        for n in 0..70_000 {
            assert_eq!(shift(ONE, n), power, "{n}");
            power = multiply(power, BYTE);
        }
        // x^(8 * 2^24), by squaring.
        let mut power = BYTE;
        for _ in 0..24 {
            power = multiply(power, power);
        }
        assert_eq!(shift(ONE, 1 << 24), power);
        assert_eq!(
            shift(ONE, i32::MAX as u32),
            shift(shift(ONE, 1 << 30), (1 << 30) - 1)
        );
    }
}
