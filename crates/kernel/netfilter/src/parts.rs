//! Our part of what the kernel lists, in a form that can be compared.

use crate::in_force::fingerprint;
use crate::{Damage, RuleSet};

/// A chain of ours, the jumps to one, or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// What an administrator calls it.
    pub(crate) name: String,
    /// Its lines without counters; none if it does not exist.
    pub(crate) lines: Option<Vec<String>>,
}

/// Equal for equal parts.
pub(crate) fn print_of(parts: &[Part]) -> u64 {
    fingerprint(parts.iter().flat_map(|part| {
        let lines = part.lines.iter().flatten().map(String::as_str);
        std::iter::once(part.name.as_str()).chain(lines)
    }))
}

/// The parts of another set that differs from the one they were listed for in what is released only.
///
/// The model releases the largest value: neither a single bit nor all of them, it stands for nothing else.
pub(crate) fn respelled(
    parts: &[Part],
    spell: fn(u32) -> String,
    model: &RuleSet,
    wanted: &RuleSet,
) -> Vec<Part> {
    let (old, new) = (spell(model.released_mark()), spell(wanted.released_mark()));
    // How `nft` writes what keeps the other bits.
    let others = !wanted.field.mask();
    let kept = (spell(others | model.released_mark()), spell(others | wanted.released_mark()));
    let line = |line: &String| {
        line.replace(&format!("released={} ", model.released), &format!("released={} ", wanted.released))
            .replace(&kept.0, &kept.1)
            .replace(&old, &new)
    };
    let part = |part: &Part| Part {
        name: part.name.clone(),
        lines: part.lines.as_ref().map(|lines| lines.iter().map(line).collect()),
    };
    parts.iter().map(part).collect()
}

/// Names the first difference.
pub(crate) fn damage(found: &[Part], expected: &[Part]) -> Option<Damage> {
    let missing = Part { name: String::new(), lines: None };
    let differs = expected.iter().find_map(|part| {
        let found = found.iter().find(|found| found.name == part.name).unwrap_or(&missing);
        difference(&part.name, found.lines.as_deref(), part.lines.as_deref())
    });
    let unknown = || {
        let unknown = found.iter().find(|found| expected.iter().all(|part| part.name != found.name))?;
        Some(Damage(format!("{} was added", unknown.name)))
    };
    differs.or_else(unknown)
}

fn difference(name: &str, found: Option<&[String]>, expected: Option<&[String]>) -> Option<Damage> {
    let (found, expected) = match (found, expected) {
        (Some(found), Some(expected)) => (found, expected),
        (None, None) => return None,
        (None, Some(_)) => return Some(Damage(format!("{name} is gone"))),
        (Some(_), None) => return Some(Damage(format!("{name} was added"))),
    };
    let equal = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    let what = match (found.get(equal), expected.get(equal)) {
        (None, None) => return None,
        (Some(found), Some(expected)) => format!("has `{found}` instead of `{expected}`"),
        (Some(found), None) => format!("has `{found}` in addition"),
        (None, Some(expected)) => format!("lacks `{expected}`"),
    };
    Some(Damage(format!("{name} {what}")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn chain(name: &str, lines: &[&str]) -> Part {
        Part { name: name.to_owned(), lines: Some(lines.iter().map(|&line| line.to_owned()).collect()) }
    }

    #[test]
    fn first_difference_is_told_in_one_sentence() {
        let expected = [chain("chain A", &["one", "two"])];
        for (found, told) in [
            (vec![], "chain A is gone"),
            (vec![Part { name: "chain A".to_owned(), lines: None }], "chain A is gone"),
            (vec![chain("chain A", &[])], "chain A lacks `one`"),
            (vec![chain("chain A", &["one"])], "chain A lacks `two`"),
            (vec![chain("chain A", &["one", "three"])], "chain A has `three` instead of `two`"),
            (vec![chain("chain A", &["one", "two", "three"])], "chain A has `three` in addition"),
            (vec![chain("chain A", &["one", "two"]), chain("chain B", &[])], "chain B was added"),
        ] {
            assert_eq!(damage(&found, &expected).unwrap().to_string(), told);
            assert_ne!(print_of(&found), print_of(&expected));
        }
        assert_eq!(damage(&expected, &expected), None);
    }
}
