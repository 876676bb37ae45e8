//! Large buffers on huge pages: weights are read from end to end for every token, and a page table entry for every 4 KiB costs a tenth of
//! the memory's speed.
#![expect(unsafe_code, reason = "island: a map of zeros seen as a slice of plain values")]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Buffers below this come from the allocator: a huge page holds 2 MiB.
const MAPPED_BYTES_MIN: usize = 4 << 20;

/// One cache line, the unit in which kernels read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

/// A value for which every pattern of bits is sound, and zero bits are a sound start.
pub trait Plain: Copy + Default + 'static + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl sealed::Sealed for $kind {}
        impl Plain for $kind {}
    )*};
}
plain!(u8, f32, Line);

impl Default for Line {
    fn default() -> Line {
        Line([0; 64])
    }
}

/// A fixed number of values, zero at first.
#[derive(Debug)]
pub struct Buffer<T: Plain>(Storage<T>);

#[derive(Debug)]
enum Storage<T> {
    Allocated(Vec<T>),
    /// `len` values at the start of the map.
    Mapped {
        map: MmapMut,
        len: usize,
        kind: PhantomData<T>,
    },
}

impl<T: Plain> Buffer<T> {
    /// Room for `len` values. Large buffers ask the system for huge pages, and do with ordinary ones where it has none.
    ///
    /// # Panics
    /// If the size overflows.
    #[must_use]
    pub fn zeros(len: usize) -> Buffer<T> {
        let bytes = len.checked_mul(size_of::<T>()).expect("a buffer fits the address space");
        if bytes >= MAPPED_BYTES_MIN
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // Advice: where it is refused, small pages do the same more slowly.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Buffer(Storage::Mapped { map, len, kind: PhantomData });
        }
        Buffer(Storage::Allocated(vec![T::default(); len]))
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Storage::Allocated(values) => values,
            // SAFETY: the map has `len` values' bytes, starts at a page (no T is aligned beyond 64), and every pattern of bits is a T.
            Storage::Mapped { map, len, .. } => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), *len) },
        }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Storage::Allocated(values) => values,
            // SAFETY: as in `deref`, and `&mut self` is exclusive.
            Storage::Mapped { map, len, .. } => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), *len)
            },
        }
    }
}

/// Bytes of some lines.
#[must_use]
pub fn as_bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: a line is 64 bytes without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 64) }
}

/// Bytes of some lines, to be written.
pub fn as_bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: a line is 64 bytes without padding, and any bytes are a line.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

/// Signed bytes of some lines.
#[must_use]
pub fn as_int8(lines: &[Line]) -> &[i8] {
    // SAFETY: a line is 64 bytes without padding, and any byte is an i8.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 64) }
}

/// Signed bytes of some lines, to be written.
pub fn as_int8_mut(lines: &mut [Line]) -> &mut [i8] {
    // SAFETY: as above, and any bytes are a line.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Line, MAPPED_BYTES_MIN, as_bytes, as_bytes_mut, as_int8, as_int8_mut};

    #[test]
    fn small_and_large_buffers_are_zero_and_keep_what_is_written() {
        for len in [0, 1, 1000, MAPPED_BYTES_MIN / 64, MAPPED_BYTES_MIN / 64 + 1] {
            let mut buffer = Buffer::<Line>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert!(as_bytes(&buffer).iter().all(|&byte| byte == 0));
            if let Some(last) = as_bytes_mut(&mut buffer).last_mut() {
                *last = 7;
                assert_eq!(buffer[len - 1].0[63], 7);
            }
            if let Some(first) = as_int8_mut(&mut buffer).first_mut() {
                *first = -1;
                assert_eq!((buffer[0].0[0], as_int8(&buffer)[0]), (255, -1));
            }
            assert_eq!(buffer.as_ptr() as usize % 64, 0);
        }
    }
}
