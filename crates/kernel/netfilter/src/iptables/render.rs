//! The rules in the words of iptables.

use super::Family;
use crate::RuleSet;
use crate::Unanswered;
use crate::rules::{Action, ICMP_ERRORS, ICMPV6_ERRORS, ICMPV6_NEIGHBOURS, Match, Place, rules};

/// What precedes, in a comment, the tables and chains that did not exist before.
const MADE: &str = " made=";

/// The rules of one of our chains; the first carries the comment.
pub(super) fn chain(family: Family, place: Place, rule_set: &RuleSet, made: &[String]) -> Vec<String> {
    let comment = with_made(&rule_set.comment(), made);
    let rules = rules(place, rule_set).into_iter().flat_map(|(about, action)| {
        let target = target(action, rule_set);
        matches(family, place, about, rule_set)
            .into_iter()
            .map(move |about| format!("{about} -j {target}").trim_start().to_owned())
    });
    rules
        .enumerate()
        .map(|(number, rule)| match number {
            0 => format!("-m comment --comment \"{comment}\" {rule}"),
            _ => rule,
        })
        .collect()
}

/// A comment with what is recorded in it.
pub(crate) fn with_made(comment: &str, made: &[String]) -> String {
    if made.is_empty() { comment.to_owned() } else { format!("{comment}{MADE}{}", made.join(",")) }
}

/// A comment of ours without what is recorded in it, and that.
pub(crate) fn split_made(comment: &str) -> (&str, Vec<String>) {
    match comment.split_once(MADE) {
        None => (comment, Vec::new()),
        Some((comment, made)) => (comment, made.split(',').map(str::to_owned).collect()),
    }
}

/// One text for each rule that it takes.
fn matches(family: Family, place: Place, about: Match, rule_set: &RuleSet) -> Vec<String> {
    let field = rule_set.field.mask();
    let one = |text: &str| vec![text.to_owned()];
    match about {
        Match::Any => one(""),
        Match::Loopback if place == Place::ToUnit => one("-i lo"),
        Match::Loopback => one("-o lo"),
        Match::Syn => one("-p tcp -m tcp --tcp-flags SYN SYN"),
        Match::Magic => one(&format!("-p tcp {}", payload_begins(family, rule_set.magic()))),
        Match::Released => {
            let released = format!("-m connmark --mark {:#x}/{field:#x}", rule_set.released_mark());
            match family {
                Family::V4 => one(&format!("-p tcp {released}")),
                // The next header of the fixed one is TCP.
                Family::V6 => one(&format!("-p tcp -m u32 --u32 \"0x3&0xff=0x6\" {released}")),
            }
        }
        Match::Tcp => one("-p tcp"),
        Match::IcmpErrors if family == Family::V4 => icmp(family, &ICMP_ERRORS),
        Match::IcmpErrors => icmp(family, &ICMPV6_ERRORS),
        Match::Neighbours if family == Family::V4 => Vec::new(),
        Match::Neighbours => icmp(family, &ICMPV6_NEIGHBOURS),
        Match::MarkNothing => one(&format!("-m mark --mark 0x0/{field:#x}")),
        Match::MarkReset => one(&format!("-m mark --mark {field:#x}/{field:#x}")),
        Match::MarkRelease => one(&format!("-m mark ! --mark {field:#x}/{field:#x}")),
    }
}

fn icmp(family: Family, types: &[u8]) -> Vec<String> {
    let about = match family {
        Family::V4 => "-p icmp -m icmp --icmp-type",
        Family::V6 => "-p ipv6-icmp -m icmp6 --icmpv6-type",
    };
    types.iter().map(|kind| format!("{about} {kind}")).collect()
}

/// Goes to the end of the IP header, then by the data offset to the end of the TCP header, and compares four bytes.
/// In IPv6 TCP must follow the fixed header: behind another one it is queued anyway.
fn payload_begins(family: Family, magic: u32) -> String {
    match family {
        Family::V4 => format!("-m u32 --u32 \"0x0>>0x16&0x3c@0xc>>0x1a&0x3c@0x0={magic:#x}\""),
        Family::V6 => format!("-m u32 --u32 \"0x3&0xff=0x6&&0x34>>0x1a&0x3c@0x28={magic:#x}\""),
    }
}

fn target(action: Action, rule_set: &RuleSet) -> String {
    let field = rule_set.field.mask();
    match action {
        Action::ClearMark => format!("MARK --set-xmark 0x0/{field:#x}"),
        Action::ClearConnmark => format!("CONNMARK --set-xmark 0x0/{field:#x}"),
        Action::SaveMark => format!("CONNMARK --save-mark --nfmask {field:#x} --ctmask {field:#x}"),
        Action::Queue => {
            let bypass = match rule_set.unanswered {
                Unanswered::Drop => "",
                Unanswered::Accept => " --queue-bypass",
            };
            format!("NFQUEUE --queue-num {}{bypass}", rule_set.queue)
        }
        Action::Return => "RETURN".to_owned(),
        Action::Deny => "DROP".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::rule_set::tests::longest;

    #[test]
    fn longest_comment_fits_and_what_is_recorded_is_read_back() {
        let made = [
            "mangle",
            "mangle/OUTPUT",
            "mangle/INPUT",
            "mangle/FORWARD",
            "mangle/POSTROUTING",
            "filter",
            "filter/INPUT",
        ];
        let made = made.map(str::to_owned);
        let rules = chain(Family::V6, Place::Through, &longest(), &made);
        let comment = rules.first().unwrap().split('"').nth(1).unwrap();

        assert!(comment.len() < 256, "{comment}");
        assert_eq!(split_made(comment), (longest().comment().as_str(), made.to_vec()));
    }

    #[test]
    fn tcp_of_ipv6_is_released_directly_behind_the_fixed_header_only() {
        let rules = chain(Family::V6, Place::FromUnit, &longest(), &[]);
        let released: Vec<_> = rules.iter().filter(|rule| rule.contains("-m connmark")).collect();

        assert_eq!(
            released,
            ["-p tcp -m u32 --u32 \"0x3&0xff=0x6\" -m connmark --mark 0xfffffffe/0xffffffff -j RETURN"]
        );
    }
}
