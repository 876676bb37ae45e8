//! What this machine could do at most: bytes read from memory and int8 multiply-adds per second, measured with loops that do
//! nothing else. `aria bench` sets the engine's figures beside them.
//!
//! Both run on a [`Pool`] of their own, as the engine does. Neighbours on the same host slow everything down and nothing speeds it up, so
//! the best of some passes is the least wrong.
#![expect(unsafe_code, reason = "island: SIMD reached after detection, and assembly that hides a register's value")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::KernelKind;
use crate::memory::{Buffer, Line};
use crate::pool::{Pool, PoolError};

/// Bytes of one pass: many times what caches hold.
pub const READ_BYTES: usize = 512 << 20;
/// Passes, of which the best counts.
const PASSES: usize = 5;
/// Length of one pass of multiply-adds.
const PASS: Duration = Duration::from_millis(20);
/// Places from which a thread reads in turn: more requests are under way than from one.
const STREAMS: usize = 4;
/// Chains of multiply-adds: enough to hide the latency of each.
const CHAINS: usize = 16;
/// Turns over all chains between two looks at the clock: some microseconds.
const TURNS: usize = 4096;

/// Gigabytes (10^9) per second that `threads` threads together read from memory, each its own part of [`READ_BYTES`] on huge pages.
///
/// # Errors
/// If that many threads cannot be started.
pub fn read_gb_s(threads: usize) -> Result<f64, PoolError> {
    let mut pool = Pool::new(threads)?;
    let mut buffer = Buffer::<Line>::zeros(READ_BYTES / size_of::<Line>());
    let share = buffer.len().div_ceil(threads);
    {
        // Written first, each part by its reader: pages that were never written are all the same one of zeros.
        let parts: Vec<Mutex<&mut [Line]>> = buffer.chunks_mut(share).map(Mutex::new).collect();
        pool.run(&|index| {
            if let Some(part) = parts.get(index) {
                part.lock().unwrap_or_else(PoisonError::into_inner).fill(Line([1; 64]));
            }
        });
    }
    let parts: Vec<&[Line]> = buffer.chunks(share).collect();
    let mut best = Duration::MAX;
    for pass in 0..=PASSES {
        let began = Instant::now();
        pool.run(&|index| {
            if let Some(part) = parts.get(index) {
                black_box(fold(part));
            }
        });
        // The first pass warms up.
        if pass > 0 {
            best = best.min(began.elapsed());
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a size far below 2^53")]
    let bytes = (buffer.len() * size_of::<Line>()) as f64;
    Ok(bytes / best.as_secs_f64() / 1e9)
}

/// Thousand millions of int8 multiply-adds per second that `threads` threads together do with the instructions of a kernel path, in registers alone.
/// `None` where this CPU does not have them.
///
/// # Errors
/// If that many threads cannot be started.
pub fn int8_gmac_s(kind: KernelKind, threads: usize) -> Result<Option<f64>, PoolError> {
    let Some(work) = work_of(kind) else { return Ok(None) };
    let mut pool = Pool::new(threads)?;
    let mut best = 0.0_f64;
    for pass in 0..=PASSES {
        let done = AtomicU64::new(0);
        let began = Instant::now();
        pool.run(&|_| {
            let mut macs = 0;
            while began.elapsed() < PASS {
                macs += work();
            }
            done.fetch_add(macs, Ordering::Relaxed);
        });
        let elapsed = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a count far below 2^53")]
        let macs = done.into_inner() as f64;
        if pass > 0 {
            best = best.max(macs / elapsed / 1e9);
        }
    }
    Ok(Some(best))
}

/// Reads a part of the buffer: all lines, xored.
fn fold(part: &[Line]) -> Line {
    #[cfg(target_arch = "x86_64")]
    if KernelKind::Avx512Plain.is_available() {
        // SAFETY: the features were seen just now.
        return unsafe { x86::fold_avx512(part) };
    }
    fold_plain(part)
}

/// [`STREAMS`] equal pieces and what is left over.
fn streams(part: &[Line]) -> ([&[Line]; STREAMS], &[Line]) {
    let share = part.len() / STREAMS;
    (std::array::from_fn(|index| &part[index * share..(index + 1) * share]), &part[STREAMS * share..])
}

fn fold_plain(part: &[Line]) -> Line {
    let ([a, b, c, d], rest) = streams(part);
    let mut all = [0; 64];
    for ((a, b), (c, d)) in a.iter().zip(b).zip(c.iter().zip(d)) {
        for (index, all) in all.iter_mut().enumerate() {
            *all ^= (a.0[index] ^ b.0[index]) ^ (c.0[index] ^ d.0[index]);
        }
    }
    xor_lines(&mut all, rest);
    Line(all)
}

fn xor_lines(all: &mut [u8; 64], lines: &[Line]) {
    for line in lines {
        for (all, byte) in all.iter_mut().zip(line.0) {
            *all ^= byte;
        }
    }
}

/// Does a fixed number of multiply-adds, and says how many.
type Work = fn() -> u64;

/// The multiply-adds of a path; `None` where the CPU lacks them.
fn work_of(kind: KernelKind) -> Option<Work> {
    if !kind.is_available() {
        return None;
    }
    match kind {
        KernelKind::Scalar => Some(plain),
        #[cfg(target_arch = "x86_64")]
        KernelKind::Avx2 => Some(|| {
            // SAFETY: `is_available` saw the path's features.
            unsafe { x86::avx2() }
        }),
        #[cfg(target_arch = "x86_64")]
        KernelKind::Avx512Plain => Some(|| {
            // SAFETY: `is_available` saw the path's features.
            unsafe { x86::avx512_plain() }
        }),
        #[cfg(target_arch = "x86_64")]
        KernelKind::Avx512 => Some(|| {
            // SAFETY: `is_available` saw the path's features.
            unsafe { x86::avx512_vnni() }
        }),
        #[cfg(target_arch = "aarch64")]
        KernelKind::Neon => arm::work(),
        #[cfg(not(target_arch = "x86_64"))]
        KernelKind::Avx2 | KernelKind::Avx512Plain | KernelKind::Avx512 => None,
        #[cfg(not(target_arch = "aarch64"))]
        KernelKind::Neon => None,
    }
}

/// What the compiler makes of a plain loop, over int8 values that were widened before it and stay in the nearest cache.
fn plain() -> u64 {
    const LEN: usize = 4096;
    let (a, b) = ([3_i16; LEN], [-5_i16; LEN]);
    for _ in 0..TURNS / CHAINS {
        let pairs = black_box(&a).iter().zip(black_box(&b));
        black_box(pairs.fold(0, |sum: i32, (&a, &b)| sum.wrapping_add(i32::from(a).wrapping_mul(i32::from(b)))));
    }
    (LEN * (TURNS / CHAINS)) as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        _mm256_add_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_setzero_si256, _mm512_add_epi16,
        _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_maddubs_epi16, _mm512_set1_epi8, _mm512_setzero_si512,
        _mm512_store_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
    };
    use std::hint::black_box;

    use super::{CHAINS, Line, TURNS, streams, xor_lines};

    /// The truth table of a xor b xor c.
    const XOR3: i32 = 0x96;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn fold_avx512(part: &[Line]) -> Line {
        let ([a, b, c, d], rest) = streams(part);
        // SAFETY: a line is 64 bytes, aligned to 64.
        let load = |line: &Line| unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
        let mut all = [_mm512_setzero_si512(); 2];
        for ((a, b), (c, d)) in a.iter().zip(b).zip(c.iter().zip(d)) {
            all[0] = _mm512_ternarylogic_epi64::<XOR3>(all[0], load(a), load(b));
            all[1] = _mm512_ternarylogic_epi64::<XOR3>(all[1], load(c), load(d));
        }
        let mut out = Line::default();
        // SAFETY: a line is 64 bytes, aligned to 64.
        unsafe { _mm512_store_si512(out.0.as_mut_ptr().cast(), _mm512_xor_si512(all[0], all[1])) };
        xor_lines(&mut out.0, rest);
        out
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn avx512_vnni() -> u64 {
        let (codes, q) = (black_box(_mm512_set1_epi8(2)), black_box(_mm512_set1_epi8(-3)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, codes, q);
            }
        }
        black_box(sums);
        (TURNS * CHAINS * 64) as u64
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn avx512_plain() -> u64 {
        let (mut codes, q) = (black_box(_mm512_set1_epi8(2)), black_box(_mm512_set1_epi8(-3)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                // SAFETY: no instruction at all. The compiler has to take the codes for new ones and cannot reuse a product.
                unsafe {
                    asm!("/* {codes} */", codes = inout(zmm_reg) codes, options(nomem, nostack, preserves_flags))
                };
                *sum = _mm512_add_epi16(*sum, _mm512_maddubs_epi16(codes, q));
            }
        }
        black_box(sums);
        (TURNS * CHAINS * 64) as u64
    }

    /// Half the registers of AVX-512, and half the chains: two sums a cycle leave enough.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2() -> u64 {
        const HALF: usize = CHAINS / 2;
        let (mut codes, q) = (black_box(_mm256_set1_epi8(2)), black_box(_mm256_set1_epi8(-3)));
        let mut sums = [_mm256_setzero_si256(); HALF];
        for _ in 0..TURNS {
            for sum in &mut sums {
                // SAFETY: as in `avx512_plain`.
                unsafe {
                    asm!("/* {codes} */", codes = inout(ymm_reg) codes, options(nomem, nostack, preserves_flags))
                };
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes, q));
            }
        }
        black_box(sums);
        (TURNS * HALF * 32) as u64
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{vdupq_n_s8, vdupq_n_s32};
    use std::arch::{asm, is_aarch64_feature_detected};
    use std::hint::black_box;

    use super::{CHAINS, TURNS, Work};

    /// `None` for CPUs without the dot product.
    pub(super) fn work() -> Option<Work> {
        is_aarch64_feature_detected!("dotprod").then_some(|| {
            // SAFETY: the feature was seen just now.
            unsafe { sdot() }
        })
    }

    #[target_feature(enable = "neon,dotprod")]
    fn sdot() -> u64 {
        let (a, b) = (black_box(vdupq_n_s8(1)), black_box(vdupq_n_s8(-3)));
        let mut sums = [vdupq_n_s32(0); CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                // SAFETY: one instruction on registers, part of the feature that this function enables.
                unsafe {
                    asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) *sum, a = in(vreg) a, b = in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        black_box(sums);
        (TURNS * CHAINS * 16) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{KernelKind, Line, fold, fold_plain, int8_gmac_s, read_gb_s, xor_lines};

    #[test]
    fn every_line_is_read_once_whatever_the_length() {
        for len in [0, 1, 3, 4, 5, 64, 251] {
            let line = |index: u8| Line(std::array::from_fn(|at| index.wrapping_mul(31) ^ u8::try_from(at).unwrap()));
            let lines: Vec<Line> = (0..len).map(line).collect();
            let mut expected = Line::default();
            xor_lines(&mut expected.0, &lines);
            assert_eq!((fold(&lines), fold_plain(&lines)), (expected, expected), "{len} lines");
        }
    }

    #[test]
    fn limits_are_positive_numbers() {
        for threads in [1, 3] {
            let read = read_gb_s(threads).expect("threads can be started");
            assert!(read.is_finite() && read > 0.0, "{read}");
            for kind in KernelKind::ALL {
                let peak = int8_gmac_s(kind, threads).expect("threads can be started");
                assert!(peak.is_none_or(|peak| peak.is_finite() && peak > 0.0), "{kind}: {peak:?}");
                assert!(peak.is_none() || kind.is_available(), "{kind}");
            }
        }
        assert!(int8_gmac_s(KernelKind::Scalar, 1).expect("one thread").is_some(), "a plain loop runs everywhere");
    }

    #[test]
    fn a_wrong_number_of_threads_is_refused() {
        assert!(read_gb_s(0).is_err() && int8_gmac_s(KernelKind::Scalar, 0).is_err());
    }
}
