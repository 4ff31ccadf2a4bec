//! What the plane found at the units' edges, in words.

use trireme_bpf::{Damage, Hook, Repair};

use super::convert;
use crate::datapath::supervisor::Repaired;

pub(super) fn repaired(repair: &Repair) -> Repaired {
    Repaired { slot: convert::pu_slot(repair.slot), found: describe(repair), problem: repair.error.clone() }
}

fn describe(repair: &Repair) -> String {
    let what = match repair.hook {
        Some(Hook::FromPu) => "the program for what the unit sends",
        Some(Hook::ToPu) => "the program for what goes to the unit",
        None => "its state in the table of units",
    };
    let happened = match repair.damage {
        Damage::Detached => "was removed",
        Damage::Replaced => "was replaced by another",
        Damage::Unpinned => "lost its pin",
        Damage::Forgotten => "was changed or removed",
    };
    format!("{what} {happened}")
}

#[cfg(test)]
mod tests {
    use trireme_bpf::Slot;

    use super::*;

    #[test]
    fn damage_is_told_in_a_sentence() {
        let repair = |hook, damage| Repair { slot: Slot(1), hook, damage, error: None };
        assert_eq!(
            describe(&repair(Some(Hook::ToPu), Damage::Detached)),
            "the program for what goes to the unit was removed"
        );
        assert_eq!(
            describe(&repair(None, Damage::Forgotten)),
            "its state in the table of units was changed or removed"
        );
    }
}
