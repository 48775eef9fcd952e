// SPDX-License-Identifier: GPL-2.0-or-later
//! The CRC-32 of zlib and Ethernet over long runs of bytes, on processors for which crc32fast has no instructions.
//!
//! There it looks a table up for each byte, some five instructions: as much as a tenth of what the kernel takes to read
//! or to write an entry. This takes about one.
//!
//! 1 + x^145 + x^183 + x^211 + x^300, the bits of a stream in their order, is a multiple of the CRC's polynomial, and
//! of all with five terms the shortest. Squaring a polynomial over GF(2) doubles each exponent, so 32 times these make
//! a multiple, too: a word of 32 bits can be cleared without a change of the CRC if it is XORed onto the words 145,
//! 183, 211 and 300 further on. That is done with all but the last 300 words, many at a time, and crc32fast does those.
//! (The idea: Russell, "Chorba: A novel CRC32 implementation", 2024, arXiv 2412.16398.)

use crc32fast::Hasher;

/// Where a cleared word goes to, in words.
const TAPS: [usize; 4] = [145, 183, 211, 300];
/// The farthest.
const REACH: usize = 300;
/// Words cleared at a time: nearer than the nearest tap, so that none depends on another.
const BLOCK: usize = 144;
/// Words cleared before the last of them are moved to the front.
const SPAN: usize = 16 * BLOCK;
const WORD_BYTES: usize = 4;
/// Below this, clearing does not pay.
pub const LEAST_BYTES: usize = 2 * REACH * WORD_BYTES;

/// The CRC of what had the CRC `crc`, followed by `bytes`.
#[must_use]
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    if cfg!(target_arch = "powerpc64") && bytes.len() >= LEAST_BYTES {
        sparse(crc, bytes)
    } else {
        looked_up(crc, bytes)
    }
}

/// The CRC by crc32fast alone.
#[must_use]
pub fn looked_up(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    // In the host's order, which is all the same to an XOR of whole words.
    bytes.chunks_exact(WORD_BYTES).map(|word| word.try_into().map_or(0, u32::from_ne_bytes))
}

/// The CRC by clearing words first. Takes [`LEAST_BYTES`] or more.
#[must_use]
pub fn sparse(crc: u32, bytes: &[u8]) -> u32 {
    let (cleared, tail) = bytes.split_at(bytes.len() / WORD_BYTES * WORD_BYTES - REACH * WORD_BYTES);
    // What the last words cleared were at their turn; then those of this span.
    let mut turn = [0_u32; REACH + SPAN];
    // The state that the bytes meet is the same as none, and the bytes XORed with it.
    let mut state = u32::from_ne_bytes((!crc).to_le_bytes());
    let mut filled = REACH;
    for span in cleared.chunks(SPAN * WORD_BYTES) {
        turn.copy_within(filled - REACH..filled, 0);
        filled = REACH;
        for block in span.chunks(BLOCK * WORD_BYTES) {
            let (before, now) = turn.split_at_mut(filled);
            let [a, b, c, d] = TAPS.map(|tap| &before[filled - tap..]);
            let earlier = a.iter().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| a ^ b ^ c ^ d);
            for ((now, word), earlier) in now.iter_mut().zip(words(block)).zip(earlier) {
                *now = word ^ earlier;
            }
            now[0] ^= std::mem::take(&mut state);
            filled += block.len() / WORD_BYTES;
        }
    }
    let mut rest = [0; REACH * WORD_BYTES];
    let landed =
        |at: usize| TAPS.iter().filter(|&&tap| at < tap).fold(0, |sum, tap| sum ^ turn[filled + at - tap]);
    for (at, (rest, word)) in rest.chunks_exact_mut(WORD_BYTES).zip(words(tail)).enumerate() {
        rest.copy_from_slice(&(word ^ landed(at)).to_ne_bytes());
    }
    // Inverted, as crc32fast has it: a state of 0.
    let crc = looked_up(u32::MAX, &rest);
    looked_up(crc, &tail[rest.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taps_are_a_multiple_of_the_polynomial() {
        // x to the power of each, modulo the polynomial, highest bit first.
        let power = |exponent: usize| {
            (0..exponent).fold(1_u32, |x, _| x << 1 ^ if x >> 31 == 1 { 0x04c1_1db7 } else { 0 })
        };
        let sum = TAPS.iter().fold(power(REACH), |sum, tap| sum ^ power(REACH - tap));
        assert_eq!(sum, 0);
    }

    #[test]
    fn the_shortest_runs_are_long_enough() {
        let bytes = [0x5a; LEAST_BYTES + WORD_BYTES];
        for len in LEAST_BYTES..=bytes.len() {
            assert_eq!(sparse(7, &bytes[..len]), looked_up(7, &bytes[..len]), "{len}");
        }
    }
}
