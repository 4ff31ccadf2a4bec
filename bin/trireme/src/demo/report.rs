//! What came of the demonstration, for people and for programs.

use serde::Serialize;
use trireme_testkit::lab::Family;

use super::latency::Summary;
use super::matrix::{Cell, Path};
use super::services::Seen;
use super::tier::{Access, Tier};
use crate::output::Colour;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
}

/// The whole result.
pub(super) struct Report {
    pub(super) datapath: String,
    pub(super) matrix: Vec<Cell>,
    pub(super) checks: Vec<Check>,
    pub(super) latency_us: Summary,
    pub(super) seconds: f64,
}

/// The JSON form.
#[derive(Serialize)]
struct Document<'a> {
    datapath: &'a str,
    matrix: Vec<CellDocument>,
    checks: &'a [Check],
    latency_us: &'a Summary,
}

#[derive(Serialize)]
struct CellDocument {
    from: Tier,
    to: Tier,
    family: String,
    path: Path,
    expected: Access,
    got: String,
}

impl From<&Cell> for CellDocument {
    fn from(cell: &Cell) -> Self {
        let Cell { from, to, family, path, expected, got } = cell;
        let (family, got) = (family.to_string(), got.text());
        Self { from: *from, to: *to, family, path: *path, expected: *expected, got }
    }
}

const GREEN: &str = "32";
const GREY: &str = "90";
const RED: &str = "1;31";
/// Width of a column of the matrix.
const WIDTH: usize = 10;

impl Report {
    pub(super) fn passed(&self) -> bool {
        self.matrix.iter().all(Cell::is_right) && self.checks.iter().all(|check| check.ok)
    }

    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let document = Document {
            datapath: &self.datapath,
            matrix: self.matrix.iter().map(CellDocument::from).collect(),
            checks: &self.checks,
            latency_us: &self.latency_us,
        };
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        Ok(text)
    }

    pub(super) fn to_table(&self, colour: Colour) -> String {
        let mut text = String::new();
        for path in Path::BOTH {
            for family in Family::BOTH {
                self.block(&mut text, path, family, colour);
            }
        }
        text.push_str("A allowed, D denied (silence); rows call columns; ! is not as expected\n\n");
        for check in &self.checks {
            let mark = if check.ok { colour.paint(GREEN, "ok  ") } else { colour.paint(RED, "FAIL") };
            text.push_str(&format!("{mark} {:<12} {}\n", check.name, check.detail));
        }
        let outcome = if self.passed() {
            colour.paint(GREEN, "every expectation met")
        } else {
            colour.paint(RED, "some expectations failed")
        };
        text.push_str(&format!("\n{outcome} in {:.1} s, datapath {}\n", self.seconds, self.datapath));
        text
    }

    fn block(&self, text: &mut String, path: Path, family: Family, colour: Colour) {
        let place = match path {
            Path::SameNode => "same node",
            Path::CrossNode => "across nodes",
        };
        text.push_str(&format!("{place}, {family}\n"));
        text.push_str(&format!("  {:<WIDTH$}", ""));
        for to in Tier::ALL {
            text.push_str(&format!("{to:<WIDTH$}"));
        }
        text.push('\n');
        for from in Tier::ALL {
            text.push_str(&format!("  {from:<WIDTH$}"));
            for to in Tier::ALL {
                let cell = self
                    .matrix
                    .iter()
                    .find(|cell| (cell.from, cell.to, cell.family, cell.path) == (from, to, family, path));
                text.push_str(&letter(cell, colour));
            }
            text.push('\n');
        }
        text.push('\n');
    }
}

fn letter(cell: Option<&Cell>, colour: Colour) -> String {
    let Some(cell) = cell else { return format!("{:<WIDTH$}", "-") };
    let letter = match cell.got {
        Seen::Access(Access::Allow) => "A",
        Seen::Access(Access::Deny) => "D",
        Seen::Odd(_) => "?",
    };
    let (text, code) = match (cell.is_right(), cell.expected) {
        (true, Access::Allow) => (letter.to_owned(), GREEN),
        (true, Access::Deny) => (letter.to_owned(), GREY),
        (false, _) => (format!("{letter}!"), RED),
    };
    colour.paint(code, &format!("{text:<WIDTH$}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report(got: Seen) -> Report {
        let cell = Cell {
            from: Tier::External,
            to: Tier::Backend,
            family: Family::V4,
            path: Path::CrossNode,
            expected: Access::Deny,
            got,
        };
        let check = Check { name: "replay", ok: true, detail: "nothing came back".to_owned() };
        Report {
            datapath: "bpf".to_owned(),
            matrix: vec![cell],
            checks: vec![check],
            latency_us: Summary::default(),
            seconds: 1.0,
        }
    }

    #[test]
    fn json_has_the_promised_form() {
        let text = report(Seen::Access(Access::Deny)).to_json().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["datapath"], "bpf");
        assert_eq!(
            value["matrix"][0],
            json!({"from": "external", "to": "backend", "family": "ipv4", "path": "cross-node",
                   "expected": "deny", "got": "deny"})
        );
        assert_eq!(value["checks"][0], json!({"name": "replay", "ok": true, "detail": "nothing came back"}));
        assert!(value["latency_us"].is_object());
    }

    #[test]
    fn an_unexpected_cell_fails_the_report_and_is_marked() {
        let wrong = report(Seen::Access(Access::Allow));
        assert!(!wrong.passed());
        assert!(wrong.to_table(Colour::Off).contains("A!"), "{}", wrong.to_table(Colour::Off));
        assert!(report(Seen::Access(Access::Deny)).passed());
    }
}
