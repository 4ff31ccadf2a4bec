//! The group of bits of the packet mark that is Trireme's.

use std::fmt;
use std::str::FromStr;

/// Fewest bits that leave room for nothing, for reset and for a few releases.
const LEAST_BITS: u32 = 4;

/// A contiguous group of bits of the 32-bit packet mark and of the connmark; every other bit belongs to others.
///
/// The value 0 says nothing, [`reset`](Self::reset) (all bits set) takes a release back, and 1 to [`max`](Self::max)
/// release a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MarkField {
    mask: u32,
}

impl MarkField {
    /// The upper sixteen bits.
    pub const UPPER_HALF: Self = Self { mask: 0xffff_0000 };

    /// The field of the bits that `mask` has set.
    ///
    /// # Errors
    /// [`FieldError::Narrow`] with fewer than four bits, [`FieldError::Holes`] if they are not side by side.
    pub fn new(mask: u32) -> Result<Self, FieldError> {
        if mask.count_ones() < LEAST_BITS {
            return Err(FieldError::Narrow { mask });
        }
        if mask.count_ones() + mask.leading_zeros() + mask.trailing_zeros() != u32::BITS {
            return Err(FieldError::Holes { mask });
        }
        Ok(Self { mask })
    }

    /// The bits of the field.
    pub fn mask(self) -> u32 {
        self.mask
    }

    /// The largest value that releases: one less than [`reset`](Self::reset).
    pub fn max(self) -> u32 {
        self.reset() - 1
    }

    /// The value that takes a release back: all bits set.
    pub fn reset(self) -> u32 {
        self.mask >> self.mask.trailing_zeros()
    }

    /// The value that releases connections when `last` does not any more: the next one, 1 behind the largest.
    pub fn next(self, last: u32) -> u32 {
        if last < self.max() { last + 1 } else { 1 }
    }

    /// The mark whose field holds `value` and whose other bits are 0; what does not fit into the field is cut off.
    pub fn place(self, value: u32) -> u32 {
        (value << self.mask.trailing_zeros()) & self.mask
    }

    /// The value that the field holds in `mark`.
    pub fn value(self, mark: u32) -> u32 {
        (mark & self.mask) >> self.mask.trailing_zeros()
    }
}

impl fmt::Display for MarkField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.mask)
    }
}

impl FromStr for MarkField {
    type Err = FieldError;

    /// Reads a mask in hexadecimal with `0x`, or in decimal.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        Self::new(number.map_err(|_| FieldError::Text(text.to_owned()))?)
    }
}

/// Why a group of bits cannot be the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Too few bits.
    #[error(
        "mark field {mask:#010x} has fewer than four bits: choose at least four side by side, such as 0xff000000"
    )]
    Narrow {
        /// The mask.
        mask: u32,
    },
    /// Bits of others in between.
    #[error("mark field {mask:#010x} has holes: choose bits side by side, such as 0xff000000")]
    Holes {
        /// The mask.
        mask: u32,
    },
    /// Not a number of 32 bits.
    #[error("mark field {0:?} is not a mask of 32 bits: write it like 0xff000000")]
    Text(String),
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn field_is_four_or_more_bits_side_by_side() {
        for (text, mask) in [("0xff000000", 0xff00_0000), ("0XF", 0xf), ("4294967295", u32::MAX)] {
            assert_eq!(text.parse::<MarkField>().unwrap().mask(), mask);
        }
        assert_eq!(MarkField::new(0x7), Err(FieldError::Narrow { mask: 0x7 }));
        assert_eq!(MarkField::new(0), Err(FieldError::Narrow { mask: 0 }));
        assert_eq!(MarkField::new(0xf0f0), Err(FieldError::Holes { mask: 0xf0f0 }));
        for text in ["", "ff", "0x", "0x1ffffffff", "-1"] {
            assert_eq!(text.parse::<MarkField>(), Err(FieldError::Text(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn what_is_placed_is_found_and_nothing_else_is_touched(low in 0u32..29, bits in 4u32..=32, value: u32) {
            let bits = bits.min(32 - low);
            let mask = u32::try_from((1u64 << bits) - 1).unwrap() << low;
            let field = MarkField::new(mask).unwrap();

            prop_assert_eq!(field.place(value) & !mask, 0);
            prop_assert_eq!(field.value(field.place(value) | !mask), value & field.reset());
            prop_assert_eq!(field.place(field.reset()), mask);
            prop_assert_eq!(field.to_string().parse::<MarkField>().unwrap(), field);
            prop_assert_eq!(field.max(), field.reset() - 1);
        }
    }
}
