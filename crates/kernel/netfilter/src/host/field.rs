//! The field of marks as the units of one namespace share it.

use crate::MarkField;

/// A field in two halves: the upper one says whose a packet or connection is, the lower one whether it is released.
///
/// ```text
/// unit | release
/// 0    | 0        nobody's
/// u    | 0        known to be unit u's, to be queued
/// u    | 1..=max  released under this number
/// u    | all ones a packet that was judged and leaves its connection as it is
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostField {
    field: MarkField,
    release_bits: u32,
}

impl HostField {
    /// Splits a field; with an odd number of bits the lower half is the larger one.
    pub fn new(field: MarkField) -> Self {
        Self { field, release_bits: field.mask().count_ones().div_ceil(2) }
    }

    /// The field as a whole.
    pub fn whole(self) -> MarkField {
        self.field
    }

    /// The largest number of a unit; the smallest is 1.
    pub fn max_unit(self) -> u32 {
        self.field.reset() >> self.release_bits
    }

    /// The largest number that releases; the smallest is 1.
    pub fn max_release(self) -> u32 {
        self.judged_value() - 1
    }

    /// The number that releases connections when `last` does not any more: the next one, 1 behind the largest.
    pub fn next(self, last: u32) -> u32 {
        if last < self.max_release() { last + 1 } else { 1 }
    }

    /// The mark of what is a unit's and to be queued.
    pub fn pending(self, unit: u32) -> u32 {
        self.mark(unit, 0)
    }

    /// The mark of a verdict that releases nothing.
    pub fn judged(self, unit: u32) -> u32 {
        self.mark(unit, self.judged_value())
    }

    /// The mark of what is released.
    pub fn released(self, unit: u32, release: u32) -> u32 {
        self.mark(unit, release)
    }

    /// The bits that say whose a connection is.
    pub fn unit_mask(self) -> u32 {
        self.mark(self.max_unit(), 0)
    }

    /// The bits that say whether it is released.
    pub fn release_mask(self) -> u32 {
        self.mark(0, self.judged_value())
    }

    fn judged_value(self) -> u32 {
        // A field has at least four bits, so that the half is shorter than a number.
        (1 << self.release_bits) - 1
    }

    fn mark(self, unit: u32, release: u32) -> u32 {
        self.field.place(unit << self.release_bits | release & self.judged_value())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_of_the_usual_field_are_bytes() {
        let field = HostField::new(MarkField::UPPER_HALF);

        assert_eq!((field.max_unit(), field.max_release()), (255, 254));
        assert_eq!((field.unit_mask(), field.release_mask()), (0xff00_0000, 0x00ff_0000));
        assert_eq!(field.pending(3), 0x0300_0000);
        assert_eq!(field.judged(3), 0x03ff_0000);
        assert_eq!(field.released(3, 7), 0x0307_0000);
        assert_eq!((field.next(253), field.next(254)), (254, 1));
    }

    proptest! {
        #[test]
        fn whatever_the_field_no_two_meanings_share_a_mark(low in 0u32..29, bits in 4u32..=32, unit: u32, release: u32) {
            let bits = bits.min(32 - low);
            let mask = u32::try_from((1u64 << bits) - 1).unwrap() << low;
            let field = HostField::new(MarkField::new(mask).unwrap());
            let (unit, release) = (unit % field.max_unit() + 1, release % field.max_release() + 1);

            prop_assert!(field.max_unit() >= 3 && field.max_release() >= 2);
            prop_assert_eq!(field.unit_mask() | field.release_mask(), mask);
            prop_assert_eq!(field.unit_mask() & field.release_mask(), 0);
            let marks = [0, field.pending(unit), field.judged(unit), field.released(unit, release)];
            for (index, mark) in marks.iter().enumerate() {
                prop_assert_eq!(mark & !mask, 0);
                prop_assert!(marks.iter().skip(index + 1).all(|other| other != mark));
            }
        }
    }
}
