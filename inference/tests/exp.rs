//! R9 over its whole range: error against binary64, equality of all paths, one golden digest.

#![expect(clippy::cast_possible_truncation, reason = "counts of one block are far below 2^32")]

use aria_inference::arith::exp::{LOWEST, exp32};
use aria_inference::kernels::{KernelKind, Kernels};

/// Values hashed at once; the digest is over the digests of these blocks, so that they can be computed in any order.
const BLOCK: u32 = 1 << 22;
/// Patterns of [-87, -0]: the negative floats from -0 down to -87.
const FIRST: u32 = 0x8000_0000;

fn last() -> u32 {
    LOWEST.to_bits()
}

fn kernels() -> Vec<Kernels> {
    KernelKind::ALL.into_iter().filter_map(|kind| Kernels::forced(kind).ok()).collect()
}

/// The digest of exp32 over one block of consecutive patterns.
fn block_digest(kernels: &Kernels, start: u32) -> [u8; 32] {
    let end = start.saturating_add(BLOCK - 1).min(last());
    let mut values = vec![0.0_f32; 1 << 14];
    let mut bytes = vec![0_u8; values.len() * 4];
    let mut hasher = blake3::Hasher::new();
    let mut next = start;
    while next <= end {
        let count = ((end - next) as usize + 1).min(values.len());
        for (value, pattern) in values[..count].iter_mut().zip(next..) {
            *value = f32::from_bits(pattern);
        }
        (kernels.exp)(&mut values[..count]);
        for (bytes, value) in bytes.chunks_exact_mut(4).zip(&values[..count]) {
            bytes.copy_from_slice(&value.to_bits().to_le_bytes());
        }
        hasher.update(&bytes[..count * 4]);
        next += count as u32;
    }
    *hasher.finalize().as_bytes()
}

/// The digest over every `stride`-th block.
fn digest(kernels: &Kernels, stride: u32) -> String {
    let starts: Vec<u32> = (FIRST..=last()).step_by((BLOCK as usize) * stride as usize).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut digests = vec![[0; 32]; starts.len()];
    let share = starts.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (starts, digests) in starts.chunks(share).zip(digests.chunks_mut(share)) {
            scope.spawn(move || {
                for (start, digest) in starts.iter().zip(digests) {
                    *digest = block_digest(kernels, *start);
                }
            });
        }
    });
    let mut hasher = blake3::Hasher::new();
    for digest in digests {
        hasher.update(&digest);
    }
    hasher.finalize().to_hex().to_string()
}

/// Every binary32 in [-87, 0] on the fastest path: about 1.1e9 values.
#[test]
fn golden_digest_of_the_whole_range() {
    let fastest = Kernels::detect();
    if fastest.kind == KernelKind::Scalar {
        // Software fma would take minutes; the sample below covers this path.
        assert_eq!(digest(&fastest, 64), SAMPLE);
        return;
    }
    assert_eq!(digest(&fastest, 1), WHOLE, "{}", fastest.kind);
}

#[test]
fn every_path_gives_the_same_sample() {
    for kernels in kernels() {
        assert_eq!(digest(&kernels, 64), SAMPLE, "{}", kernels.kind);
    }
}

const WHOLE: &str = "1eb93c6a8bd62c7a14b54c4d3661ccf77d543944b76e7324add5d56d49a1cae9";
const SAMPLE: &str = "c302dbc1fc122a5e290d2f313a4b562a45380d9228b491230404516e9db57e96";

#[test]
fn at_most_one_unit_in_the_last_place() {
    let mut worst = 0.0_f64;
    let mut check = |x: f32| {
        let exact = libm::exp(f64::from(x));
        let got = exp32(x);
        let unit = f64::from(got.next_up()) - f64::from(got);
        let error = (f64::from(got) - exact).abs() / unit;
        if error > worst {
            worst = error;
        }
        assert!(error <= 1.0, "exp32({x:e}) = {got:e} is {error} units off");
    };
    for pattern in (FIRST..=last()).step_by(997) {
        check(f32::from_bits(pattern));
    }
    // The positive side serves the SiLU gate.
    for pattern in (0..=88.0_f32.to_bits()).step_by(4999) {
        check(f32::from_bits(pattern));
    }
    // Around every change of the exponent, where the reduced argument is largest.
    for n in 0..=126_u16 {
        let edge = -(f32::from(n) + 0.5) * std::f32::consts::LN_2;
        for step in -40..=40 {
            let x = f32::from_bits(edge.to_bits().wrapping_add_signed(step));
            if x >= LOWEST {
                check(x);
            }
        }
    }
    assert!(worst > 0.5, "a polynomial that rounds correctly everywhere would be news: {worst}");
    println!("worst error of exp32: {worst:.4} units in the last place");
}

#[test]
fn all_paths_agree_outside_of_the_range_too() {
    let probes: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
    let expected: Vec<u32> = probes.iter().map(|&x| exp32(x).to_bits()).collect();
    for kernels in kernels() {
        let mut values = probes.clone();
        (kernels.exp)(&mut values);
        let got: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        assert!(got == expected, "{}", kernels.kind);
    }
}
