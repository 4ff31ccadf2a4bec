//! The table of the host in the words of nft.

use super::{COMMENT, HostJudged, HostSet, HostUnit};
use crate::rules::{ICMP_ERRORS, ICMPV6_ERRORS, ICMPV6_NEIGHBOURS};
use crate::{BackEnd, OtherProtocols, Unanswered};

/// Family and name.
pub(super) const TABLE: &str = "inet trireme_host";

/// Addresses and ports at which a unit may be seen to listen.
const LISTENERS: u32 = 65_535;

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Of a base chain, as nft lists it.
    pub(super) hook: Option<&'static str>,
    pub(super) rules: Vec<String>,
}

/// The way of a packet, seen from a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    From,
    To,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }

    fn loopback(self) -> &'static str {
        match self {
            Self::From => "oifname \"lo\"",
            Self::To => "iifname \"lo\"",
        }
    }

    /// The local address and port of a packet, in each family.
    fn local(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::From => [("4", "ip saddr . tcp sport"), ("6", "ip6 saddr . tcp sport")],
            Self::To => [("4", "ip daddr . tcp dport"), ("6", "ip6 daddr . tcp dport")],
        }
    }
}

/// The set in which addresses of a family are kept at which a unit was seen to listen.
pub(super) fn listeners(family: &str, unit: u32) -> String {
    format!("listens{family}_{unit}")
}

/// Its type and flags.
fn listeners_of(family: &str) -> String {
    let address = if family == "4" { "ipv4_addr" } else { "ipv6_addr" };
    format!("{{ type {address} . inet_service; size {LISTENERS}; flags dynamic; }}")
}

/// Names and definitions of all sets.
pub(super) fn sets(set: &HostSet) -> Vec<(String, String)> {
    let sets = set.judged().flat_map(|(unit, _)| {
        ["4", "6"].map(|family| (listeners(family, unit.number), listeners_of(family)))
    });
    sets.collect()
}

/// All chains, base chains first.
pub(super) fn chains(set: &HostSet, back_end: BackEnd) -> Vec<Chain> {
    let writer = Writer { set };
    let mut chains = vec![
        base("from", "type filter hook output priority mangle - 10; policy accept;", writer.way(Way::From)),
        base("to", "type filter hook input priority mangle - 10; policy accept;", writer.way(Way::To)),
        base(
            "through",
            "type filter hook forward priority mangle - 10; policy accept;",
            vec![writer.clear_mark()],
        ),
        base("save_from", "type filter hook postrouting priority mangle; policy accept;", writer.save()),
        base("save_to", "type filter hook input priority filter; policy accept;", writer.save()),
    ];
    for way in [Way::From, Way::To] {
        let name = |what: &str| format!("{what}_{}", way.name());
        chains.push(plain(name("syn"), writer.syn(way)));
        chains.push(plain(name("stranger"), writer.stranger(way)));
        chains.push(plain(name("other"), writer.other_protocols(way)));
    }
    chains.push(plain("error".to_owned(), writer.error()));
    for (unit, judged) in set.judged() {
        chains.extend(writer.unit(unit, judged, back_end));
    }
    if let Some(first) = chains.first_mut().and_then(|chain| chain.rules.first_mut()) {
        first.push_str(&format!(" comment \"{COMMENT}\""));
    }
    chains
}

fn base(name: &str, hook: &'static str, rules: Vec<String>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(hook), rules }
}

fn plain(name: String, rules: Vec<String>) -> Chain {
    Chain { name, hook: None, rules }
}

/// Writes the rules of a set.
struct Writer<'a> {
    set: &'a HostSet,
}

impl Writer<'_> {
    fn field(&self) -> u32 {
        self.set.field.mask()
    }

    fn clear_mark(&self) -> String {
        format!("meta mark set meta mark & {:#010x}", !self.field())
    }

    fn set_connmark(&self, mark: u32) -> String {
        format!("ct mark set ct mark & {:#010x} | {mark:#010x}", !self.field())
    }

    /// Whose a packet is, by a whole socket.
    fn by_socket(&self, chain: impl Fn(&HostUnit, HostJudged) -> String) -> Vec<String> {
        let rule = |unit: &&HostUnit| {
            let verdict = unit
                .judged
                .map_or_else(|| "return".to_owned(), |judged| format!("goto {}", chain(unit, judged)));
            format!("socket cgroupv2 level {} \"{}\" {verdict}", unit.level, unit.cgroup)
        };
        self.set.by_depth().iter().map(rule).collect()
    }

    /// By the connmark.
    fn by_connmark(&self) -> String {
        let halves = self.set.halves();
        let units = self.set.judged().map(|(unit, _)| {
            let number = unit.number;
            format!("{:#010x} : goto unit_{number}", halves.pending(number))
        });
        let units: Vec<String> = units.collect();
        format!("ct mark & {:#010x} vmap {{ {} }}", halves.unit_mask(), units.join(", "))
    }

    /// By the local address and port.
    fn by_listener(&self, way: Way) -> impl Iterator<Item = String> {
        self.set.judged().flat_map(move |(unit, _)| {
            let number = unit.number;
            way.local()
                .map(|(family, local)| format!("{local} @{} goto unit_{number}", listeners(family, number)))
        })
    }

    fn way(&self, way: Way) -> Vec<String> {
        let name = way.name();
        let mut rules = vec![
            self.clear_mark(),
            format!("{} return", way.loopback()),
            format!("meta l4proto != tcp goto other_{name}"),
            format!("tcp flags & (syn | ack) == syn goto syn_{name}"),
        ];
        if way == Way::To {
            // A peer may repeat its proof on a connection that is released already. nft cannot compute where the payload
            // begins.
            let magic = u32::from_be_bytes(self.set.tap_magic);
            let by_connmark = self.by_connmark();
            rules.extend(
                (5..=15).map(|words| {
                    format!("tcp doff {words} @th,{},32 {magic:#010x} {by_connmark}", words * 32)
                }),
            );
        }
        let halves = self.set.halves();
        let released = format!(
            "ct mark & {:#010x} == {:#010x} return",
            halves.release_mask(),
            halves.released(0, self.set.released)
        );
        rules.extend([
            format!("tcp flags & syn == 0 meta nfproto ipv4 {released}"),
            format!("tcp flags & syn == 0 ip6 nexthdr tcp {released}"),
            self.by_connmark(),
        ]);
        rules.extend(self.by_socket(|unit, _| format!("unit_{}", unit.number)));
        rules.push("socket mark >= 0 return".to_owned());
        rules.extend(self.by_listener(way));
        rules
    }

    /// The first segment of a connection: what the connmark says may be about an older one.
    fn syn(&self, way: Way) -> Vec<String> {
        let chain = match way {
            Way::From => "unit",
            Way::To => "listens",
        };
        let mut rules = self.by_socket(|unit, _| format!("{chain}_{}", unit.number));
        rules.push(format!("socket mark >= 0 goto stranger_{}", way.name()));
        rules.push(self.by_connmark());
        rules.extend(self.by_listener(way));
        rules
    }

    /// A SYN of a socket that is no unit's: what was known about its tuple and its port is over.
    fn stranger(&self, way: Way) -> Vec<String> {
        let mut rules = vec![format!(
            "ct mark & {:#010x} != 0x00000000 ct mark set ct mark & {:#010x}",
            self.field(),
            !self.field()
        )];
        if way == Way::To {
            rules.extend(self.set.judged().flat_map(|(unit, _)| {
                way.local().map(|(family, local)| {
                    let set = listeners(family, unit.number);
                    format!("{local} @{set} delete @{set} {{ {local} }}")
                })
            }));
        }
        rules
    }

    fn other_protocols(&self, way: Way) -> Vec<String> {
        let mut rules = vec![
            format!("icmp type {} goto error", types(&ICMP_ERRORS)),
            format!("icmpv6 type {} goto error", types(&ICMPV6_ERRORS)),
            format!("icmpv6 type {} return", types(&ICMPV6_NEIGHBOURS)),
        ];
        rules.extend(self.by_socket(|unit, _| format!("others_{}_{}", way.name(), unit.number)));
        rules
    }

    fn error(&self) -> Vec<String> {
        let mut rules = vec![self.by_connmark()];
        rules.extend(self.by_socket(|unit, _| format!("unit_{}", unit.number)));
        rules
    }

    /// What a verdict says goes into the connmark. What was not queued at all has lost its rules on the way.
    fn save(&self) -> Vec<String> {
        let halves = self.set.halves();
        let verdicts = self.set.judged().flat_map(|(unit, _)| {
            let number = unit.number;
            [
                format!("{:#010x} : goto released_{number}", halves.released(number, self.set.released)),
                format!("{:#010x} : goto judged_{number}", halves.judged(number)),
                format!("{:#010x} : goto unqueued_{number}", halves.pending(number)),
            ]
        });
        let verdicts: Vec<String> = verdicts.collect();
        vec![
            format!("meta mark & {:#010x} == 0x00000000 return", self.field()),
            format!("meta mark & {:#010x} vmap {{ {} }}", self.field(), verdicts.join(", ")),
            // A verdict under an older number releases nothing.
            self.clear_mark(),
        ]
    }

    /// Without SYN the connection stays as released as it is.
    fn keep(&self, pending: u32) -> Vec<String> {
        let (unit, set) = (self.set.halves().unit_mask(), self.set_connmark(pending));
        vec![
            format!("tcp flags & syn == syn {set}"),
            format!("ct mark & {unit:#010x} != {pending:#010x} {set}"),
            self.clear_mark(),
        ]
    }

    fn unit(&self, unit: &HostUnit, judged: HostJudged, back_end: BackEnd) -> Vec<Chain> {
        let (number, halves) = (unit.number, self.set.halves());
        let pending = halves.pending(number);
        let mut caught = vec![
            format!("meta mark set meta mark & {:#010x} | {pending:#010x}", !self.field()),
            format!("tcp flags & syn == syn {}", self.set_connmark(pending)),
        ];
        if back_end == BackEnd::Nft {
            let bypass = match judged.unanswered {
                Unanswered::Drop => "",
                Unanswered::Accept => " bypass",
            };
            caught.push(format!("queue num {}{bypass}", judged.queue));
        }
        let learn = Way::To
            .local()
            .map(|(family, local)| format!("add @{} {{ {local} }}", listeners(family, number)));
        let other = match judged.other_protocols {
            OtherProtocols::Judge => format!("goto unit_{number}"),
            OtherProtocols::Deny => "counter drop".to_owned(),
            OtherProtocols::Allow => "return".to_owned(),
        };
        let unqueued = match judged.unanswered {
            Unanswered::Drop => "counter drop".to_owned(),
            Unanswered::Accept => self.clear_mark(),
        };
        let released = self.set_connmark(halves.released(number, self.set.released));
        vec![
            plain(format!("unit_{number}"), caught),
            plain(
                format!("listens_{number}"),
                learn.into_iter().chain([format!("goto unit_{number}")]).collect(),
            ),
            plain(format!("others_from_{number}"), vec![other.clone()]),
            plain(format!("others_to_{number}"), vec![other]),
            plain(format!("released_{number}"), vec![released, self.clear_mark()]),
            plain(format!("judged_{number}"), self.keep(pending)),
            plain(format!("unqueued_{number}"), vec![unqueued]),
        ]
    }
}

fn types(types: &[u8]) -> String {
    let types: Vec<String> = types.iter().map(u8::to_string).collect();
    format!("{{ {} }}", types.join(", "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::super::tests::{set, unit};
    use super::*;

    fn chain(chains: &[Chain], name: &str) -> Vec<String> {
        chains.iter().find(|chain| chain.name == name).unwrap().rules.clone()
    }

    #[test]
    fn ways_of_a_packet_are_written_in_order() {
        let off = HostUnit { judged: None, ..unit(9, "a/b") };
        let chains = chains(&set(&[unit(1, "a"), off]), BackEnd::IptablesNft);

        assert_eq!(
            chain(&chains, "from"),
            [
                "meta mark set meta mark & 0x0000ffff comment \"trireme host 1\"",
                "oifname \"lo\" return",
                "meta l4proto != tcp goto other_from",
                "tcp flags & (syn | ack) == syn goto syn_from",
                "tcp flags & syn == 0 meta nfproto ipv4 ct mark & 0x00ff0000 == 0x00050000 return",
                "tcp flags & syn == 0 ip6 nexthdr tcp ct mark & 0x00ff0000 == 0x00050000 return",
                "ct mark & 0xff000000 vmap { 0x01000000 : goto unit_1 }",
                "socket cgroupv2 level 2 \"a/b\" return",
                "socket cgroupv2 level 1 \"a\" goto unit_1",
                "socket mark >= 0 return",
                "ip saddr . tcp sport @listens4_1 goto unit_1",
                "ip6 saddr . tcp sport @listens6_1 goto unit_1",
            ]
        );
        assert_eq!(
            chain(&chains, "syn_to"),
            [
                "socket cgroupv2 level 2 \"a/b\" return",
                "socket cgroupv2 level 1 \"a\" goto listens_1",
                "socket mark >= 0 goto stranger_to",
                "ct mark & 0xff000000 vmap { 0x01000000 : goto unit_1 }",
                "ip daddr . tcp dport @listens4_1 goto unit_1",
                "ip6 daddr . tcp dport @listens6_1 goto unit_1",
            ]
        );
        let to = chain(&chains, "to");
        let magic: Vec<&String> = to.iter().filter(|rule| rule.contains("0x54415001 ct mark")).collect();
        assert_eq!(magic.len(), 11);
        let at = |part: &str| to.iter().position(|rule| rule.contains(part)).unwrap();
        assert!(at("syn_to") < at("doff") && at("doff 15") < at("== 0x00050000 return"), "{to:?}");
    }

    #[test]
    fn what_was_not_queued_is_dropped_where_nobody_may_pass_unjudged() {
        let open = HostUnit {
            judged: unit(2, "b").judged.map(|judged| HostJudged { unanswered: Unanswered::Accept, ..judged }),
            ..unit(2, "b")
        };
        let chains = chains(&set(&[unit(1, "a"), open]), BackEnd::Nft);

        assert_eq!(chain(&chains, "unqueued_1"), ["counter drop"]);
        assert_eq!(chain(&chains, "unqueued_2"), ["meta mark set meta mark & 0x0000ffff"]);
        assert_eq!(chain(&chains, "unit_1").last().unwrap(), "queue num 10");
        assert_eq!(chain(&chains, "unit_2").last().unwrap(), "queue num 10 bypass");
        assert_eq!(
            chain(&chains, "save_from").get(1).unwrap(),
            "meta mark & 0xffff0000 vmap { 0x01050000 : goto released_1, 0x01ff0000 : goto judged_1, \
             0x01000000 : goto unqueued_1, 0x02050000 : goto released_2, 0x02ff0000 : goto judged_2, \
             0x02000000 : goto unqueued_2 }"
        );
        assert_eq!(
            chain(&chains, "judged_1"),
            [
                "tcp flags & syn == syn ct mark set ct mark & 0x0000ffff | 0x01000000",
                "ct mark & 0xff000000 != 0x01000000 ct mark set ct mark & 0x0000ffff | 0x01000000",
                "meta mark set meta mark & 0x0000ffff"
            ]
        );
    }
}
