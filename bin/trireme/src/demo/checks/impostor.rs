//! Having an address is not having an identity.

use trireme_testkit::lab::{Family, Pu, Side};

use super::super::report::Check;
use super::super::stage::Stage;
use super::super::tier::{Access, Tier};
use super::{Attempt, check, failures};

/// External takes a frontend's addresses; the backends must go on refusing it.
pub(in super::super) fn impostor(stage: &Stage) -> anyhow::Result<Check> {
    let victim = stage.replica(Side::A, Tier::Frontend)?;
    let thief = stage.replica(Side::A, Tier::External)?;
    let stolen = Stolen::take(stage, victim, thief)?;
    let mut attempts = Vec::new();
    for family in Family::BOTH {
        let address = victim.address(family).to_string();
        // The stolen address works: another external, open to everyone, answers it.
        let targets = [
            (Side::B, Tier::External, Access::Allow),
            (Side::A, Tier::Backend, Access::Deny),
            (Side::B, Tier::Backend, Access::Deny),
        ];
        for (side, tier, expected) in targets {
            let server = stage.replica(side, tier)?;
            attempts.push(Attempt {
                what: format!("external as {address} -> {}", server.name),
                from: &thief.namespace,
                to: server.at(family, tier.port()),
                tier,
                server: &server.name,
                source: Some(address.clone()),
                expected,
            });
        }
    }
    let failures = failures(&attempts);
    stolen.give_back()?;
    let passed = format!("external called from {} and {}: the backends refused it", victim.v4, victim.v6);
    Ok(check("impostor", passed, &failures?))
}

/// Addresses that moved from one workload to another.
struct Stolen<'a> {
    stage: &'a Stage,
    victim: &'a Pu,
    thief: &'a Pu,
}

impl<'a> Stolen<'a> {
    fn take(stage: &'a Stage, victim: &'a Pu, thief: &'a Pu) -> anyhow::Result<Self> {
        let Pu { v4, v6, .. } = victim;
        victim.namespace.ip("link set eth0 down\n")?;
        thief
            .namespace
            .ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad preferred_lft 0\n"))?;
        let stolen = Self { stage, victim, thief };
        stolen.forget_neighbours()?;
        Ok(stolen)
    }

    fn give_back(self) -> anyhow::Result<()> {
        let Pu { v4, v6, .. } = self.victim;
        self.thief.namespace.ip(&format!("addr del {v4}/32 dev eth0\naddr del {v6}/128 dev eth0\n"))?;
        let net = if self.victim.side == Side::A { 1 } else { 2 };
        // Going down took the IPv6 address and the default routes away.
        self.victim.namespace.ip(&format!(
            "link set eth0 up\naddr replace {v6}/64 dev eth0 nodad\n\
             route replace default via 10.10.{net}.1\nroute replace ::/0 via fd00:10:{net}::1\n"
        ))?;
        self.forget_neighbours()
    }

    fn forget_neighbours(&self) -> anyhow::Result<()> {
        let node = &self.stage.lab.node(self.victim.side).namespace;
        let mut holders = vec![node, &self.thief.namespace, &self.victim.namespace];
        for tier in Tier::ALL {
            holders.push(&self.stage.replica(self.victim.side, tier)?.namespace);
        }
        for holder in holders {
            holder.ip("neigh flush all\n")?;
        }
        Ok(())
    }
}
