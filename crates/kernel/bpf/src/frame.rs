//! Ethernet headers: of the packets that were taken, and for packets that user space makes.

use std::collections::HashMap;
use std::net::IpAddr;

/// Most pairs of addresses that are remembered exactly.
const PAIRS: usize = 65_536;

/// Most neighbours remembered per PU.
const NEIGHBOURS: usize = 4096;

/// Hardware address.
pub(crate) type Mac = [u8; 6];

/// Gives every pair of hardware addresses a number: the token of a punt.
#[derive(Default)]
pub(crate) struct Pairs {
    numbers: HashMap<(Mac, Mac), u32>,
    pairs: Vec<(Mac, Mac)>,
    /// Tokens of another generation are forgotten.
    generation: u32,
}

impl Pairs {
    /// Returns the token of the pair (destination, source).
    pub(crate) fn token(&mut self, pair: (Mac, Mac)) -> u64 {
        let number = match self.numbers.get(&pair) {
            Some(number) => *number,
            None => self.add(pair),
        };
        u64::from(self.generation) << 32 | u64::from(number)
    }

    /// Returns the pair (destination, source) of a token.
    pub(crate) fn pair(&self, token: u64) -> Option<(Mac, Mac)> {
        if u32::try_from(token >> 32).ok()? != self.generation {
            return None;
        }
        self.pairs.get(usize::try_from(token & 0xffff_ffff).ok()?).copied()
    }

    fn add(&mut self, pair: (Mac, Mac)) -> u32 {
        if self.pairs.len() >= PAIRS {
            // Only a flood of made-up addresses gets here; packets on their way fall back to what was learnt.
            self.numbers.clear();
            self.pairs.clear();
            self.generation = self.generation.wrapping_add(1);
        }
        let number = u32::try_from(self.pairs.len()).unwrap_or(0);
        self.pairs.push(pair);
        self.numbers.insert(pair, number);
        number
    }
}

/// Whom a PU talks to on its link, learnt from its own packets and, failing that, from its neighbours'.
#[derive(Default)]
pub(crate) struct Neighbours {
    pu: Option<Mac>,
    gateway: Option<Mac>,
    by_address: HashMap<IpAddr, Mac>,
}

impl Neighbours {
    /// Learns from a packet that the PU sent to `remote`: its own choice of next hop.
    pub(crate) fn learn_from_pu(&mut self, (destination, source): (Mac, Mac), remote: IpAddr) {
        self.pu = Some(source);
        if is_group(&destination) {
            return;
        }
        self.gateway = Some(destination);
        if self.by_address.get(&remote) != Some(&destination) {
            if self.by_address.len() >= NEIGHBOURS {
                self.by_address.clear();
            }
            self.by_address.insert(remote, destination);
        }
    }

    /// Learns from a packet to the PU what is still unknown.
    pub(crate) fn learn_to_pu(&mut self, (destination, source): (Mac, Mac)) {
        if !is_group(&destination) {
            self.pu.get_or_insert(destination);
        }
        self.gateway.get_or_insert(source);
    }

    /// Returns the hardware addresses of the PU and of its next hop to `remote`.
    pub(crate) fn ends(&self, remote: IpAddr) -> Option<(Mac, Mac)> {
        let hop = self.by_address.get(&remote).copied().or(self.gateway)?;
        Some((self.pu?, hop))
    }
}

/// Splits an Ethernet header into (destination, source).
pub(crate) fn pair_of(ethernet: &[u8; 14]) -> (Mac, Mac) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *ethernet;
    ([a, b, c, d, e, f], [g, h, i, j, k, l])
}

/// Builds the Ethernet header of an IP packet; None if it is no IP packet.
pub(crate) fn header((destination, source): (Mac, Mac), packet: &[u8]) -> Option<[u8; 14]> {
    let (high, low) = match packet.first()? >> 4 {
        4 => (0x08, 0x00),
        6 => (0x86, 0xdd),
        _ => return None,
    };
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    Some([a, b, c, d, e, f, g, h, i, j, k, l, high, low])
}

/// Source and destination address of an IP packet.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let take4 = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(IpAddr::from);
    let take6 = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(IpAddr::from);
    match packet.first()? >> 4 {
        4 => Some((take4(12)?, take4(16)?)),
        6 => Some((take6(8)?, take6(24)?)),
        _ => None,
    }
}

fn is_group(mac: &Mac) -> bool {
    mac.first().is_some_and(|first| first & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const C: Mac = [2, 0, 0, 0, 0, 3];

    #[test]
    fn token_leads_back_to_its_pair_until_a_flood_of_pairs() {
        let mut pairs = Pairs::default();
        let token = pairs.token((A, B));

        assert_eq!(pairs.token((A, B)), token);
        assert_eq!(pairs.pair(token), Some((A, B)));
        for number in 0..u32::try_from(PAIRS).unwrap_or(0) {
            let [a, b, c, d] = number.to_be_bytes();
            pairs.token(([4, 0, a, b, c, d], A));
        }
        assert_eq!(pairs.pair(token), None);
    }

    #[test]
    fn next_hop_is_what_the_pu_chose_not_what_a_neighbour_claims() {
        let (far, near) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.ends(far), None);

        neighbours.learn_to_pu((A, C));
        assert_eq!(neighbours.ends(far), Some((A, C)));
        neighbours.learn_from_pu((B, A), far);
        neighbours.learn_from_pu((C, A), near);
        neighbours.learn_to_pu((A, [2, 0, 0, 0, 0, 9]));

        assert_eq!(neighbours.ends(far), Some((A, B)));
        assert_eq!(neighbours.ends(near), Some((A, C)));
    }
}
