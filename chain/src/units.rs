//! Quantities. Each is a type of its own, so that a height is never added to an amount; arithmetic is checked.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// A sum, difference or product that its type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{quantity} overflows")]
pub struct Overflow {
    /// The type that overflowed.
    pub quantity: &'static str,
}

/// Declares a quantity over an unsigned integer. A macro, because eight types with the same twelve lines each would
/// hide the few lines in which they differ.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Nothing of it.
            pub const ZERO: $name = $name(0);

            /// The quantity with this number.
            pub const fn new(value: $inner) -> $name {
                $name(value)
            }

            /// Its number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Adds checked sums to a quantity of which there can be more or less. Places and moments have none.
macro_rules! summable {
    ($name:ident) => {
        impl $name {
            /// The sum, if the type holds it.
            pub fn checked_add(self, other: $name) -> Result<$name, Overflow> {
                self.0.checked_add(other.0).map($name).ok_or(Overflow { quantity: stringify!($name) })
            }

            /// The difference, if it is not negative.
            pub fn checked_sub(self, other: $name) -> Result<$name, Overflow> {
                self.0.checked_sub(other.0).map($name).ok_or(Overflow { quantity: stringify!($name) })
            }

            /// The difference, or zero where it would be negative.
            #[must_use]
            pub fn minus_or_zero(self, other: $name) -> $name {
                $name(self.0.saturating_sub(other.0))
            }
        }
    };
}

quantity! {
    /// Number of a block; the genesis block has height 0.
    Height(u64)
}
quantity! {
    /// A span of blocks with one validator set.
    Epoch(u64)
}
quantity! {
    /// A consensus attempt at one height, from 0.
    Round(u32)
}
quantity! {
    /// A moment: milliseconds since 1970-01-01 UTC.
    Timestamp(u64)
}
quantity! {
    /// A span of time in milliseconds.
    Millis(u64)
}
quantity! {
    /// Money: 10^9 nano-ARIA are one ARIA.
    NanoAria(u64)
}
quantity! {
    /// Energy in microjoules; doors show millijoules.
    Microjoules(u64)
}
quantity! {
    /// Operations that a record stands for.
    WorkUnits(u64)
}

summable!(Millis);
summable!(NanoAria);
summable!(Microjoules);
summable!(WorkUnits);

impl Height {
    /// The height above.
    pub fn next(self) -> Result<Height, Overflow> {
        self.plus(1)
    }

    /// The height below, or nothing below genesis.
    pub fn previous(self) -> Option<Height> {
        self.0.checked_sub(1).map(Height)
    }

    /// The height `blocks` further up.
    pub fn plus(self, blocks: u64) -> Result<Height, Overflow> {
        self.0.checked_add(blocks).map(Height).ok_or(Overflow { quantity: "Height" })
    }

    /// Blocks since `earlier`, or zero if that is not earlier.
    pub fn blocks_since(self, earlier: Height) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Timestamp {
    /// The moment a span later.
    pub fn plus(self, span: Millis) -> Result<Timestamp, Overflow> {
        self.0.checked_add(span.0).map(Timestamp).ok_or(Overflow { quantity: "Timestamp" })
    }

    /// The span since `earlier`, or zero if that is not earlier.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_checked() {
        assert_eq!(NanoAria::new(2).checked_add(NanoAria::new(3)), Ok(NanoAria::new(5)));
        let over = NanoAria::new(u64::MAX).checked_add(NanoAria::new(1));
        assert_eq!(over, Err(Overflow { quantity: "NanoAria" }));
        assert_eq!(over.unwrap_err().to_string(), "NanoAria overflows");
        assert_eq!(WorkUnits::new(3).checked_sub(WorkUnits::new(2)), Ok(WorkUnits::new(1)));
        assert_eq!(WorkUnits::new(2).checked_sub(WorkUnits::new(3)), Err(Overflow { quantity: "WorkUnits" }));
        assert_eq!(Microjoules::new(2).minus_or_zero(Microjoules::new(3)), Microjoules::ZERO);
        assert_eq!(Millis::new(5).minus_or_zero(Millis::new(3)), Millis::new(2));
    }

    #[test]
    fn heights_are_places_not_amounts() {
        assert_eq!(Height::new(4).next(), Ok(Height::new(5)));
        assert_eq!(Height::new(u64::MAX).next(), Err(Overflow { quantity: "Height" }));
        assert_eq!(Height::new(4).previous(), Some(Height::new(3)));
        assert_eq!(Height::ZERO.previous(), None);
        assert_eq!(Height::new(4).plus(10), Ok(Height::new(14)));
        assert_eq!(Height::new(14).blocks_since(Height::new(4)), 10);
        assert_eq!(Height::new(4).blocks_since(Height::new(14)), 0);
    }

    #[test]
    fn moments_are_apart_by_spans() {
        let start = Timestamp::new(1_000);
        assert_eq!(start.plus(Millis::new(500)), Ok(Timestamp::new(1_500)));
        assert_eq!(Timestamp::new(u64::MAX).plus(Millis::new(1)), Err(Overflow { quantity: "Timestamp" }));
        assert_eq!(Timestamp::new(1_500).since(start), Millis::new(500));
        assert_eq!(start.since(Timestamp::new(1_500)), Millis::ZERO);
    }

    #[test]
    fn a_quantity_is_a_bare_number_outside() {
        assert_eq!(serde_json::to_string(&Epoch::new(7)).unwrap(), "7");
        assert_eq!(serde_json::from_str::<Round>("7").unwrap(), Round::new(7));
        assert_eq!(Height::new(7).to_string(), "7");
        assert_eq!(borsh::to_vec(&Height::new(258)).unwrap(), [2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
