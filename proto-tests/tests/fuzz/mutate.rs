//! Inputs made of others: what is damaged, cut, spliced or lied about.

use fastrand::Rng;

/// Inputs do not grow beyond this.
const LONGEST: usize = 16 * 1024;

/// One of the corpus with one to eight changes.
pub(crate) fn input(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = pick(corpus, rng).clone();
    for _ in 0..rng.usize(1..=8) {
        change(&mut input, corpus, rng);
    }
    input.truncate(LONGEST);
    input
}

fn pick<'a>(corpus: &'a [Vec<u8>], rng: &mut Rng) -> &'a Vec<u8> {
    &corpus[rng.usize(..corpus.len())]
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    let length = input.len();
    let at = rng.usize(..=length);
    // Headers and counts stand in front: half of the changes go there.
    let at = if rng.bool() {
        at.min(rng.usize(..64))
    } else {
        at
    };
    let end = (at + rng.usize(..=32)).min(length);
    match rng.u8(..9) {
        0 if at < length => input[at] ^= 1 << rng.u8(..8),
        1 if at < length => input[at] = rng.u8(..),
        2 if at < length => input[at] = input[at].wrapping_add(rng.u8(1..4).wrapping_sub(2)),
        3 => overwrite(input, at, &interesting(length - at, rng)),
        4 => drop(input.splice(at..at, interesting(length - at, rng))),
        5 => drop(input.drain(at..end)),
        6 => {
            let twice = input[at..end].to_vec();
            drop(input.splice(at..at, twice));
        }
        7 => {
            let other = pick(corpus, rng);
            let from = rng.usize(..=other.len());
            let to = (from + rng.usize(..=other.len())).min(other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        _ => input.truncate(rng.usize(..=length)),
    }
}

fn overwrite(input: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in input[at..].iter_mut().zip(with) {
        *to = *from;
    }
}

/// A number that decoders trip over, or a length that is nearly right, in one of Kafka's encodings.
fn interesting(left: usize, rng: &mut Rng) -> Vec<u8> {
    let left = i64::try_from(left).unwrap();
    let numbers = [
        0,
        1,
        -1,
        -2,
        2,
        127,
        128,
        255,
        256,
        16_384,
        32_767,
        65_536,
        1 << 24,
        left,
        left - 1,
        left + 1,
        left - 4,
        left / 2,
        2 * left,
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        i64::from(u32::MAX),
        i64::MAX,
        i64::MIN,
    ];
    let n = numbers[rng.usize(..numbers.len())];
    match rng.u8(..6) {
        0 => (n as i16).to_be_bytes().to_vec(),
        1 => (n as i32).to_be_bytes().to_vec(),
        2 => n.to_be_bytes().to_vec(),
        3 => vec![n as u8],
        4 => varint(n as u64),
        _ => varint(((n << 1) ^ (n >> 63)) as u64),
    }
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}
