//! The rules in the words of nft.

use super::TABLE;
use crate::rules::{Action, ICMP_ERRORS, ICMPV6_ERRORS, ICMPV6_NEIGHBOURS, Match, Place, rules};
use crate::{RuleSet, Unanswered};

/// Lengths of the TCP header in words of 32 bits.
const DATA_OFFSETS: std::ops::RangeInclusive<u32> = 5..=15;

/// Our chain at a place.
pub(super) fn name(place: Place) -> &'static str {
    match place {
        Place::FromUnit => "from",
        Place::ToUnit => "to",
        Place::Through => "through",
        Place::SaveFrom => "save_from",
        Place::SaveTo => "save_to",
    }
}

/// The hook of a chain, as nft lists it.
pub(super) fn hook(place: Place) -> &'static str {
    match place {
        Place::FromUnit => "type filter hook output priority mangle; policy accept;",
        Place::ToUnit => "type filter hook input priority mangle; policy accept;",
        Place::Through => "type filter hook forward priority mangle; policy accept;",
        Place::SaveFrom => "type filter hook postrouting priority mangle; policy accept;",
        Place::SaveTo => "type filter hook input priority filter; policy accept;",
    }
}

/// One transaction that puts the rules in place of what is there.
///
/// Chains that are `kept` change their rules all at once. A table that somebody rebuilt is replaced as a whole.
pub(super) fn script(rule_set: &RuleSet, kept: bool) -> String {
    let mut lines = vec![format!("add table {TABLE}")];
    if kept {
        lines.push(format!("flush table {TABLE}"));
    } else {
        lines.extend([format!("delete table {TABLE}"), format!("add table {TABLE}")]);
        let chains =
            Place::ALL.map(|place| format!("add chain {TABLE} {} {{ {} }}", name(place), hook(place)));
        lines.extend(chains);
    }
    for place in Place::ALL {
        let rules = chain(place, rule_set);
        lines.extend(rules.iter().map(|rule| format!("add rule {TABLE} {} {rule}", name(place))));
    }
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The rules of one chain; the first carries the comment.
fn chain(place: Place, rule_set: &RuleSet) -> Vec<String> {
    let rules =
        rules(place, rule_set).into_iter().flat_map(|(about, action)| rule(place, about, action, rule_set));
    let comment = format!(" comment \"{}\"", rule_set.comment());
    rules
        .zip(std::iter::once(comment).chain(std::iter::repeat(String::new())))
        .map(|(rule, comment)| rule + &comment)
        .collect()
}

fn rule(place: Place, about: Match, action: Action, rule_set: &RuleSet) -> Vec<String> {
    if action == Action::SaveMark {
        return save(rule_set);
    }
    let others = !rule_set.field.mask();
    let action = match action {
        Action::ClearMark => format!("meta mark set meta mark & {others:#010x}"),
        Action::ClearConnmark | Action::SaveMark => format!("ct mark set ct mark & {others:#010x}"),
        Action::Queue => {
            let bypass = match rule_set.unanswered {
                Unanswered::Drop => "",
                Unanswered::Accept => " bypass",
            };
            format!("queue num {}{bypass}", rule_set.queue)
        }
        Action::Return => "return".to_owned(),
        Action::Deny => "counter drop".to_owned(),
    };
    let matches = matches(place, about, rule_set).into_iter();
    matches.map(|about| format!("{about} {action}").trim_start().to_owned()).collect()
}

/// One text for each rule that it takes.
fn matches(place: Place, about: Match, rule_set: &RuleSet) -> Vec<String> {
    let field = rule_set.field.mask();
    let one = |text: &str| vec![text.to_owned()];
    match about {
        Match::Any => one(""),
        Match::Loopback if place == Place::ToUnit => one("iifname \"lo\""),
        Match::Loopback => one("oifname \"lo\""),
        Match::Syn => one("tcp flags & syn == syn"),
        Match::Magic => {
            let magic = rule_set.magic();
            // nft cannot compute where the payload begins.
            DATA_OFFSETS
                .map(|words| format!("tcp doff {words} @th,{},32 {magic:#010x}", words * 32))
                .collect()
        }
        Match::Released => {
            let released = format!("ct mark & {field:#010x} == {:#010x}", rule_set.released_mark());
            vec![
                format!("meta nfproto ipv4 meta l4proto tcp {released}"),
                format!("ip6 nexthdr tcp {released}"),
            ]
        }
        Match::Tcp => one("meta l4proto tcp"),
        Match::IcmpErrors => {
            vec![format!("icmp type {}", set(&ICMP_ERRORS)), format!("icmpv6 type {}", set(&ICMPV6_ERRORS))]
        }
        Match::Neighbours => vec![format!("icmpv6 type {}", set(&ICMPV6_NEIGHBOURS))],
        Match::MarkNothing => one(&format!("meta mark & {field:#010x} == 0x00000000")),
        Match::MarkReset => one(&format!("meta mark & {field:#010x} == {field:#010x}")),
        Match::MarkRelease => one(&format!("meta mark & {field:#010x} != {field:#010x}")),
    }
}

/// Copies the field of the packet's mark into the connmark.
///
/// Before kernel 6.13 nft can combine a mark with a constant only. The value that releases now is written at once; any
/// other, of an older or a coming set, bit by bit.
fn save(rule_set: &RuleSet) -> Vec<String> {
    let (field, released) = (rule_set.field.mask(), rule_set.released_mark());
    let is_released = format!("meta mark & {field:#010x} == {released:#010x}");
    let is_other =
        format!("meta mark & {field:#010x} != {released:#010x} meta mark & {field:#010x} != {field:#010x}");
    let mut rules = vec![
        format!("{is_released} ct mark set ct mark & {:#010x} | {released:#010x}", !field),
        format!("{is_other} ct mark set ct mark & {:#010x}", !field),
    ];
    let bits = (0..u32::BITS).map(|bit| 1u32 << bit).filter(|bit| bit & field != 0);
    rules.extend(bits.map(|bit| {
        format!("{is_other} meta mark & {bit:#010x} == {bit:#010x} ct mark set ct mark | {bit:#010x}")
    }));
    rules
}

fn set(types: &[u8]) -> String {
    let types: Vec<String> = types.iter().map(u8::to_string).collect();
    format!("{{ {} }}", types.join(", "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::{MarkField, OtherProtocols};

    fn set(other_protocols: OtherProtocols, unanswered: Unanswered) -> RuleSet {
        let field = MarkField::new(0xf000_0000).unwrap();
        RuleSet { queue: 7, field, released: 5, unanswered, other_protocols, tap_magic: *b"TAP\x01" }
    }

    #[test]
    fn rules_toward_the_unit_are_written_in_order() {
        let set = set(OtherProtocols::Deny, Unanswered::Accept);
        let rules = chain(Place::ToUnit, &set);

        assert_eq!(
            rules.first().unwrap(),
            "meta mark set meta mark & 0x0fffffff comment \"trireme 1 queue=7 field=0xf0000000 released=5 \
             unanswered=accept other=deny tap=54415001\""
        );
        let (magic, others): (Vec<_>, Vec<_>) = rules.iter().skip(1).partition(|rule| rule.contains("doff"));
        assert_eq!(magic.len(), 11);
        assert_eq!(*magic.first().unwrap(), "tcp doff 5 @th,160,32 0x54415001 queue num 7 bypass");
        assert_eq!(*magic.last().unwrap(), "tcp doff 15 @th,480,32 0x54415001 queue num 7 bypass");
        assert_eq!(
            others,
            [
                "iifname \"lo\" return",
                "tcp flags & syn == syn ct mark set ct mark & 0x0fffffff",
                "tcp flags & syn == syn queue num 7 bypass",
                "meta nfproto ipv4 meta l4proto tcp ct mark & 0xf0000000 == 0x50000000 return",
                "ip6 nexthdr tcp ct mark & 0xf0000000 == 0x50000000 return",
                "meta l4proto tcp queue num 7 bypass",
                "icmp type { 3, 11, 12 } queue num 7 bypass",
                "icmpv6 type { 1, 2, 3, 4 } queue num 7 bypass",
                "icmpv6 type { 130, 131, 132, 133, 134, 135, 136, 137, 143 } return",
                "counter drop",
            ]
        );
    }

    #[test]
    fn nothing_bypasses_and_nothing_is_denied_unless_asked_for() {
        let text = script(&set(OtherProtocols::Allow, Unanswered::Drop), false);

        assert!(
            !text.contains("bypass") && !text.contains("drop\n") && text.contains("queue num 7\n"),
            "{text}"
        );
    }

    #[test]
    fn chains_are_made_anew_only_if_they_are_not_ours() {
        let set = set(OtherProtocols::Deny, Unanswered::Drop);
        let (kept, anew) = (script(&set, true), script(&set, false));

        assert!(kept.starts_with("add table inet trireme\nflush table inet trireme\nadd rule"), "{kept}");
        assert!(anew.starts_with("add table inet trireme\ndelete table inet trireme\nadd table"), "{anew}");
    }
}
