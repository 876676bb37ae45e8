//! Sixteen binary32 lanes: what a CPU path has to provide so that [`super::float`] can be written once.
//!
//! Every method is one instruction per register, applied lane by lane; none mixes lanes except the two folds, which follow R3. Methods are
//! always inlined into functions that enable the path's instruction set, the only place from which they are called.
#![expect(unsafe_code, reason = "island: SIMD loads and stores by pointer")]

use crate::arith::lanes::LANES;

/// Sixteen lanes of binary32.
pub(super) trait Lanes: Copy {
    /// All lanes equal.
    fn splat(value: f32) -> Self;
    /// Reads 16 values.
    ///
    /// # Safety
    /// `from` is valid for reading 16 values; the CPU has this path's instructions.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads 16 binary16 patterns, widened.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn load_half(from: *const u16) -> Self;
    /// Writes 16 values.
    ///
    /// # Safety
    /// `to` is valid for writing 16 values; the CPU has this path's instructions.
    unsafe fn store(self, to: *mut f32);
    /// Writes 16 values as binary16, rounded to nearest even.
    ///
    /// # Safety
    /// As for `store`.
    unsafe fn store_half(self, to: *mut u16);
    /// Writes 16 integral values within [-128, 127] as int8.
    ///
    /// # Safety
    /// As for `store`.
    unsafe fn store_int8(self, to: *mut i8);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// `other` where it is greater, else `self`.
    fn max(self, other: Self) -> Self;
    /// `other` where it is less, else `self`.
    fn min(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// `2^n` for lanes that hold `n + ROUNDER` of R9.
    fn power_of_two(self) -> Self;
    /// +0 where `probe < limit`, else `self`.
    fn zero_below(self, probe: Self, limit: Self) -> Self;
    /// `self` in the first `count` lanes, `rest` in the others.
    fn keep_first(self, count: usize, rest: Self) -> Self;
    /// R3: adds halves, 8, 4, 2, 1.
    fn fold(self) -> f32;

    /// The fold of each of sixteen sums, in order.
    #[inline(always)]
    fn fold_all(sums: &[Self; LANES]) -> Self {
        let mut folded = [0.0; LANES];
        let mut i = 0;
        while i < LANES {
            folded[i] = sums[i].fold();
            i += 1;
        }
        // SAFETY: the array has 16 values.
        unsafe { Self::load(folded.as_ptr()) }
    }

    /// The first values of a slice, up to 16; the other lanes are zero.
    #[inline(always)]
    fn load_some(from: &[f32]) -> Self {
        if from.len() >= LANES {
            // SAFETY: at least 16 values.
            return unsafe { Self::load(from.as_ptr()) };
        }
        let mut full = [0.0; LANES];
        full[..from.len()].copy_from_slice(from);
        // SAFETY: the array has 16 values.
        unsafe { Self::load(full.as_ptr()) }
    }

    /// As `load_some`, from binary16.
    #[inline(always)]
    fn load_some_half(from: &[u16]) -> Self {
        let mut full = [0; LANES];
        full[..from.len()].copy_from_slice(from);
        // SAFETY: the array has 16 values.
        unsafe { Self::load_half(full.as_ptr()) }
    }

    /// Writes as many lanes as the slice has places, up to 16.
    #[inline(always)]
    fn store_some(self, to: &mut [f32]) {
        if to.len() >= LANES {
            // SAFETY: at least 16 places.
            unsafe { self.store(to.as_mut_ptr()) };
            return;
        }
        let mut full = [0.0; LANES];
        // SAFETY: the array has 16 places.
        unsafe { self.store(full.as_mut_ptr()) };
        let len = to.len();
        to.copy_from_slice(&full[..len]);
    }

    /// As `store_some`, as binary16.
    #[inline(always)]
    fn store_some_half(self, to: &mut [u16]) {
        let mut full = [0; LANES];
        // SAFETY: the array has 16 places.
        unsafe { self.store_half(full.as_mut_ptr()) };
        let len = to.len();
        to.copy_from_slice(&full[..len]);
    }

    /// As `store_some`, as int8.
    #[inline(always)]
    fn store_some_int8(self, to: &mut [i8]) {
        let mut full = [0; LANES];
        // SAFETY: the array has 16 places.
        unsafe { self.store_int8(full.as_mut_ptr()) };
        let len = to.len();
        to.copy_from_slice(&full[..len]);
    }
}
