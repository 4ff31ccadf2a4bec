//! Addresses may be rewritten on the way; identities are not.

use std::net::SocketAddr;

use anyhow::Context;
use trireme_testkit::lab::{Family, Side, Translation};

use super::super::report::Check;
use super::super::stage::Stage;
use super::super::tier::{Access, Tier};
use super::{Attempt, check, failures};

const SERVICES: [&str; 2] = ["10.96.0.10:80", "[fd00:96::10]:80"];

/// Source translation, then a service address in front of a backend: allowed stays allowed, refused stays refused.
pub(in super::super) fn translation(stage: &Stage) -> anyhow::Result<Check> {
    let backend = stage.replica(Side::B, Tier::Backend)?;
    let direct = Family::BOTH.map(|family| backend.at(family, Tier::Backend.port()));
    let mut services = Vec::new();
    let mut translations = Vec::new();
    for (service, backend) in SERVICES.iter().zip(direct) {
        let service: SocketAddr =
            service.parse().context("a service address of the demonstration is malformed")?;
        services.push(service);
        translations.push(Translation { service, backend });
    }
    stage.lab.translate_sources(Side::B)?;
    let mut wrong = attempt(stage, "source translated", &direct)?;
    stage.lab.stop_translating()?;
    stage.lab.translate_destinations(&translations)?;
    wrong.extend(attempt(stage, "service", &services)?);
    stage.lab.stop_translating()?;
    let passed = format!(
        "frontend reached the backend through SNAT and through {}, external did not",
        SERVICES.join(" and ")
    );
    Ok(check("translation", passed, &wrong))
}

fn attempt(stage: &Stage, how: &str, addresses: &[SocketAddr]) -> anyhow::Result<Vec<String>> {
    let backend = stage.replica(Side::B, Tier::Backend)?;
    let mut attempts = Vec::new();
    for to in addresses {
        for (tier, expected) in [(Tier::Frontend, Access::Allow), (Tier::External, Access::Deny)] {
            let client = stage.replica(Side::A, tier)?;
            attempts.push(Attempt {
                what: format!("{how}: {tier} -> {to}"),
                from: &client.namespace,
                to: *to,
                tier: Tier::Backend,
                server: &backend.name,
                source: None,
                expected,
            });
        }
    }
    failures(&attempts)
}
