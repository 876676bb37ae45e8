//! Canonical arithmetic in its plainest form: the scalar twin of every kernel.
//!
//! `docs/arithmetic.md` is the text, this folder is the same text in Rust: no SIMD, no `unsafe`, nothing clever.
//! The kernels in [`crate::kernels`] must equal these functions bit for bit; a property test holds them to it.
//!
//! | rule | module |
//! |---|---|
//! | R1 float environment | [`mode`] |
//! | R2 fused multiply-add | [`fma`] |
//! | R3 sums in 16 lanes | [`lanes`] |
//! | R4 RMS norm, R5 quantisation | [`norm`] |
//! | R6 ternary matrices | [`linear`] |
//! | R7 rotary embedding | [`rope`] |
//! | R8 attention, binary16 | [`attention`], [`half`] |
//! | R9 exponential | [`exp`] |
//! | R10 gates | [`gate`] |
//! | R11 screen of the logits | [`screen`] |

pub mod attention;
pub mod exp;
pub mod fma;
pub mod gate;
pub mod half;
pub mod lanes;
pub mod linear;
pub mod mode;
pub mod norm;
pub mod rope;
pub mod screen;

/// Version of the rules in `docs/arithmetic.md`. Any change of any rule is a new number.
pub const ARITHMETIC_VERSION: u32 = 1;
