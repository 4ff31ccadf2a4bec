//! Rules about addresses, for peers without an identity or for every peer.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{FlowPolicy, Order, Services};

/// A rule about peers by address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRule {
    /// When it is asked.
    pub order: Order,
    /// What follows.
    pub flow: FlowPolicy,
    /// The networks it is about; without networks it is about nothing.
    pub networks: Vec<IpNet>,
    /// Networks taken out of this rule; other rules may still cover them.
    pub except: Vec<IpNet>,
    /// Which protocols, ports and ICMP types it is about.
    pub services: Services,
    /// Whether it also judges peers that have an identity.
    pub any_peer: bool,
}

impl IpRule {
    /// A rule of the first tier and priority, without exceptions, for peers without identity.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>, services: Services, flow: FlowPolicy) -> Self {
        Self {
            order: Order::default(),
            flow,
            networks: networks.into_iter().collect(),
            except: Vec::new(),
            services,
            any_peer: false,
        }
    }

    /// The longest prefix of this rule that holds `address`; none if the rule is not about it.
    pub(crate) fn prefix_len(&self, address: IpAddr) -> Option<u8> {
        let longest =
            self.networks.iter().filter(|net| net.contains(&address)).map(IpNet::prefix_len).max()?;
        (!self.except.iter().any(|net| net.contains(&address))).then_some(longest)
    }
}
