//! What the router between the nodes does to packets.

use std::net::SocketAddr;

use super::{Lab, LabError, Namespace, Side};

/// A service address translated by the router.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// What clients connect to.
    pub service: SocketAddr,
    /// Where they arrive.
    pub backend: SocketAddr,
}

impl Lab {
    /// Translates destinations: connections to each service address arrive at its backend.
    ///
    /// # Errors
    /// [`LabError`] if nft refuses the rules.
    pub fn translate_destinations(&self, translations: &[Translation]) -> Result<(), LabError> {
        let mut rules = String::new();
        for Translation { service, backend } in translations {
            let (family, word) = if service.is_ipv4() { ("ip", "ip") } else { ("ip6", "ip6") };
            rules.push_str(&format!(
                "{family} daddr {} tcp dport {} dnat {word} to {backend}\n",
                service.ip(),
                service.port()
            ));
        }
        self.router.nft(&format!(
            "table inet lab_dnat {{ chain pre {{ type nat hook prerouting priority dstnat; {rules} }}; }}\n"
        ))
    }

    /// Hides the source of everything the router sends towards a node behind its own address there.
    ///
    /// # Errors
    /// [`LabError`] if nft refuses the rule.
    pub fn translate_sources(&self, toward: Side) -> Result<(), LabError> {
        self.router.nft(&format!(
            "table inet lab_snat {{ chain post {{ type nat hook postrouting priority srcnat; \
             oifname \"to-{toward}\" masquerade; }}; }}\n"
        ))
    }

    /// Takes the rules of [`Lab::translate_sources`] and [`Lab::translate_destinations`] away again.
    ///
    /// # Errors
    /// [`LabError`] if nft refuses.
    pub fn stop_translating(&self) -> Result<(), LabError> {
        self.router.nft("flush ruleset\n")?;
        self.router.run("conntrack", &["-F"]).map(drop)
    }

    /// Loses a share of the packets between the nodes, in both directions, by chance.
    ///
    /// # Errors
    /// [`LabError`] if nft refuses the rule.
    pub fn lose(&self, percent: u8) -> Result<(), LabError> {
        let chance = if percent < 100 { format!("numgen random mod 100 < {percent}") } else { String::new() };
        self.router.nft(&format!(
            "table inet lab_loss {{ chain forward {{ type filter hook forward priority 0; {chance} drop; }}; }}\n"
        ))
    }

    /// Limits the packet size on the way between the nodes.
    ///
    /// # Errors
    /// [`LabError`] if an interface refuses it.
    pub fn limit_mtu(&self, bytes: u16) -> Result<(), LabError> {
        self.router.ip(&format!("link set to-a mtu {bytes}\nlink set to-b mtu {bytes}\n"))?;
        for side in Side::BOTH {
            self.node(side).namespace.ip(&format!("link set up0 mtu {bytes}\n"))?;
        }
        Ok(())
    }

    /// Makes every packet between the nodes a real one: no merged segments, complete checksums.
    ///
    /// # Errors
    /// [`LabError`] if ethtool is missing or refuses.
    pub fn without_offloads(&self) -> Result<(), LabError> {
        for side in Side::BOTH {
            turn_off(&self.node(side).namespace, "up0")?;
            turn_off(&self.router, &format!("to-{side}"))?;
        }
        Ok(())
    }
}

fn turn_off(namespace: &Namespace, interface: &str) -> Result<(), LabError> {
    let arguments = ["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
    namespace.run("ethtool", &arguments).map(drop)
}
