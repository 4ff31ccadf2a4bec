//! A router that translates sources and destinations, with the memory to undo it for the answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::packets::{self, ACK, SYN, Sum, TcpView};

/// What the router translates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatSpec {
    /// Connections from these sources leave with the router's address.
    pub masquerade: Option<Masquerade>,
    /// Service address and port, and the real server behind each.
    pub services: BTreeMap<SocketAddr, SocketAddr>,
}

/// Source translation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Masquerade {
    /// Hosts behind the router.
    pub inside: Vec<IpAddr>,
    /// The address their connections get.
    pub outside: IpAddr,
}

type Tuple = (SocketAddr, SocketAddr);

/// The router with its connection tracking.
#[derive(Debug)]
pub struct Nat {
    spec: NatSpec,
    forward: BTreeMap<Tuple, Tuple>,
    backward: BTreeMap<Tuple, Tuple>,
}

impl Nat {
    /// A router without connections.
    #[must_use]
    pub const fn new(spec: NatSpec) -> Self {
        Self { spec, forward: BTreeMap::new(), backward: BTreeMap::new() }
    }

    /// Forwards `packet`, translated if a rule or a known connection says so.
    /// Packets the router should translate but cannot, damaged ones among them, are dropped.
    #[must_use]
    pub fn forward(&mut self, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        if self.spec == NatSpec::default() {
            return Some(packet);
        }
        if !packets::ip_header_valid(&packet) || matches!(packets::tcp_sum(&packet), Some(Sum::Invalid)) {
            return None;
        }
        let Some(view) = TcpView::parse(&packet) else { return Some(packet) };
        let tuple = (view.src, view.dst);
        if let Some((src, dst)) = self.backward.get(&tuple) {
            // An answer: undo what was done to the question.
            let (src, dst) = (*dst, *src);
            packets::rewrite(&mut packet, src, dst);
            return Some(packet);
        }
        let is_first = view.has(SYN) && !view.has(ACK);
        let (src, dst) = match self.forward.get(&tuple) {
            Some(translated) => *translated,
            None if is_first && self.is_transit(tuple) => self.track(tuple)?,
            None if self.matches(tuple) || !self.is_transit(tuple) => return None,
            None => return Some(packet),
        };
        packets::rewrite(&mut packet, src, dst);
        Some(packet)
    }

    fn matches(&self, (src, dst): Tuple) -> bool {
        self.masquerades(src) || self.spec.services.contains_key(&dst)
    }

    fn masquerades(&self, src: SocketAddr) -> bool {
        self.spec.masquerade.as_ref().is_some_and(|rule| rule.inside.contains(&src.ip()))
    }

    /// Packets to the router's own address without a known connection end here.
    fn is_transit(&self, (_, dst): Tuple) -> bool {
        self.spec.masquerade.as_ref().is_none_or(|rule| rule.outside != dst.ip())
    }

    fn track(&mut self, tuple: Tuple) -> Option<Tuple> {
        let (src, dst) = tuple;
        let dst = self.spec.services.get(&dst).copied().unwrap_or(dst);
        let translated = match &self.spec.masquerade {
            Some(rule) if rule.inside.contains(&src.ip()) => {
                let outside = rule.outside;
                let ports = (src.port()..=u16::MAX).chain(1024..src.port());
                let free = |port: &u16| !self.backward.contains_key(&(dst, SocketAddr::new(outside, *port)));
                (SocketAddr::new(outside, ports.into_iter().find(free)?), dst)
            }
            _ => (src, dst),
        };
        self.forward.insert(tuple, translated);
        // The answer travels from the translated destination to the translated source.
        self.backward.insert((translated.1, translated.0), tuple);
        Some(translated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::TcpPacket;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn router() -> Nat {
        Nat::new(NatSpec {
            masquerade: Some(Masquerade {
                inside: vec![at("10.1.0.1:0").ip(), at("10.1.0.2:0").ip()],
                outside: at("10.9.0.1:0").ip(),
            }),
            services: BTreeMap::from([(at("10.96.0.1:80"), at("10.2.0.1:8080"))]),
        })
    }

    fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
        let view = TcpView::parse(packet).unwrap();
        (view.src, view.dst)
    }

    #[test]
    fn source_and_destination_are_translated_and_answers_are_translated_back() {
        let mut nat = router();
        let out = nat.forward(TcpPacket::syn(at("10.1.0.1:4000"), at("10.96.0.1:80"), 1).build()).unwrap();
        assert_eq!(ends(&out), (at("10.9.0.1:4000"), at("10.2.0.1:8080")));
        let mut answer = TcpPacket::syn(at("10.2.0.1:8080"), at("10.9.0.1:4000"), 9);
        answer.flags |= ACK;
        let back = nat.forward(answer.build()).unwrap();
        assert_eq!(ends(&back), (at("10.96.0.1:80"), at("10.1.0.1:4000")));
        assert_eq!(packets::tcp_sum(&back), Some(Sum::Valid));
    }

    #[test]
    fn two_sources_with_one_port_get_two_ports() {
        let mut nat = router();
        let first = nat.forward(TcpPacket::syn(at("10.1.0.1:4000"), at("10.2.0.1:80"), 1).build()).unwrap();
        let second = nat.forward(TcpPacket::syn(at("10.1.0.2:4000"), at("10.2.0.1:80"), 1).build()).unwrap();
        assert_eq!(ends(&first).0, at("10.9.0.1:4000"));
        assert_eq!(ends(&second).0, at("10.9.0.1:4001"));
    }

    #[test]
    fn strays_without_a_connection_are_dropped() {
        let mut nat = router();
        let mut stray = TcpPacket::syn(at("10.1.0.1:4000"), at("10.2.0.1:80"), 1);
        stray.flags = ACK;
        assert_eq!(nat.forward(stray.build()), None);
        assert_eq!(nat.forward(TcpPacket::syn(at("10.2.0.1:80"), at("10.9.0.1:4000"), 1).build()), None);
    }
}
