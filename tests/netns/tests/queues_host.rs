//! Units of the host: who is admitted, who is not, and who is left alone.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use trireme_flow::Reason;
use trireme_testkit::lab::{Family, Reach, Side};
use trireme_tests_netns::{Hosts, PORT, PROMPT, is_alive};

#[test]
fn processes_of_cgroups_are_admitted_by_their_identities_and_refused_without() {
    let hosts = Hosts::start();
    let server = hosts.server.echo(PORT);
    for family in Family::BOTH {
        for round in 0..5 {
            assert_eq!(hosts.client_sees(family), Reach::Answered, "{family} {round}\n{}", hosts.look());
        }
        let before = server.accepted();
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(server.accepted(), before, "somebody unknown got in");
        let stream = hosts.client.connect(hosts.at(Side::B, family, PORT), PROMPT);
        assert!((0..100).all(|_| is_alive(&stream)), "{family}\n{}", hosts.look());
    }
    hosts.b.await_refusal(Reason::PolicyIngress).unwrap();
}
