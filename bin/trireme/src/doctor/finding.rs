//! What was found, and how it is shown.

use serde::Serialize;

use crate::output::Colour;

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Good to know; an agent works all the same.
    Note,
    /// An agent does not start, or connections are lost.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    /// A command or a setting; there is one for everything that is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), remedy: None }
    }

    pub(super) fn note(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Note, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn problem(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Problem, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// All findings, and what they come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    findings: Vec<Finding>,
    pub(super) healthy: bool,
}

impl Report {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        let healthy = findings.iter().all(|finding| finding.level != Level::Problem);
        Self { findings, healthy }
    }

    /// A line for each finding, and one that counts them.
    pub(super) fn to_table(&self, colour: Colour) -> String {
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { check, level, found, remedy } in &self.findings {
            let (word, code) = match level {
                Level::Ok => ("ok", GREEN),
                Level::Note => ("note", YELLOW),
                Level::Problem => ("problem", RED),
            };
            text.push_str(&colour.paint(code, &format!("{word:8}")));
            text.push_str(&format!("{check:width$}  {found}"));
            if let Some(remedy) = remedy {
                text.push_str(&format!(" -> {remedy}"));
            }
            text.push('\n');
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let many = |count: usize, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let verdict = if self.healthy { "healthy" } else { "not healthy" };
        text.push_str(&format!(
            "\n{verdict}: {}, {}, {} ok\n",
            many(count(Level::Problem), "problem"),
            many(count(Level::Note), "note"),
            count(Level::Ok)
        ));
        text
    }
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "1;31";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::of(vec![
            Finding::ok("kernel", "6.1"),
            Finding::note("jit", "it is off", "turn it on"),
            Finding::problem("mtu", "too small", "raise it"),
        ])
    }

    #[test]
    fn a_finding_is_one_line_that_ends_with_its_remedy() {
        assert_eq!(
            report().to_table(Colour::Off),
            "ok      kernel  6.1\nnote    jit     it is off -> turn it on\nproblem mtu     too small -> raise it\n\nnot healthy: 1 problem, 1 note, 1 ok\n"
        );
        assert!(report().to_table(Colour::On).starts_with("\u{1b}[32mok      \u{1b}[0mkernel"));
    }

    #[test]
    fn json_has_a_remedy_for_everything_that_is_not_ok() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"findings": [
                {"check": "kernel", "level": "ok", "found": "6.1"},
                {"check": "jit", "level": "note", "found": "it is off", "remedy": "turn it on"},
                {"check": "mtu", "level": "problem", "found": "too small", "remedy": "raise it"},
            ], "healthy": false})
        );
    }

    #[test]
    fn notes_alone_are_healthy() {
        assert!(Report::of(vec![Finding::note("jit", "it is off", "turn it on")]).healthy);
    }
}
