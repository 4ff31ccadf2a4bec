//! Every tier calls every tier: on one node and across nodes, over IPv4 and IPv6.

use serde::Serialize;
use trireme_testkit::lab::{Family, Side};

use super::report::Check;
use super::services::{self, Seen};
use super::stage::Stage;
use super::tier::{Access, Tier, expected};

/// Whether both ends are on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Path {
    SameNode,
    CrossNode,
}

impl Path {
    pub(super) const BOTH: [Self; 2] = [Self::SameNode, Self::CrossNode];

    const fn server_side(self) -> Side {
        match self {
            Self::SameNode => Side::A,
            Self::CrossNode => Side::B,
        }
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) from: Tier,
    pub(super) to: Tier,
    pub(super) family: Family,
    pub(super) path: Path,
    pub(super) expected: Access,
    pub(super) got: Seen,
}

impl Cell {
    pub(super) fn is_right(&self) -> bool {
        self.got.is(self.expected)
    }
}

/// Makes all calls at once and waits for all answers.
pub(super) fn run(stage: &Stage) -> anyhow::Result<Vec<Cell>> {
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        for path in Path::BOTH {
            for family in Family::BOTH {
                for from in Tier::ALL {
                    for to in Tier::ALL {
                        calls.push(scope.spawn(move || cell(stage, from, to, family, path)));
                    }
                }
            }
        }
        calls.into_iter().map(|call| call.join().map_err(|_| anyhow::anyhow!("a call panicked"))?).collect()
    })
}

fn cell(stage: &Stage, from: Tier, to: Tier, family: Family, path: Path) -> anyhow::Result<Cell> {
    let server = stage.replica(path.server_side(), to)?;
    let client = stage.caller(from, to, path.server_side())?;
    let got = services::call(&client.namespace, server.at(family, to.port()), to, &server.name, None);
    Ok(Cell { from, to, family, path, expected: expected(from, to), got })
}

/// The matrix as a check.
pub(super) fn summary(cells: &[Cell]) -> Check {
    let wrong: Vec<_> = cells
        .iter()
        .filter(|cell| !cell.is_right())
        .map(|cell| format!("{} -> {} over {}: {}", cell.from, cell.to, cell.family, cell.got.text()))
        .collect();
    let detail = if wrong.is_empty() {
        format!("all {} calls went as the policy says", cells.len())
    } else {
        format!("{} of {} calls went wrong: {}", wrong.len(), cells.len(), wrong.join("; "))
    };
    Check { name: "matrix", ok: wrong.is_empty(), detail }
}
