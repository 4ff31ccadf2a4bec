use super::super::finding::Level;
use super::super::interfaces::link;
use super::*;

#[test]
fn an_agent_that_answers_is_told_with_what_to_do() {
    let socket = Path::new("/run/a.sock");
    assert_eq!(agent(Ok(()), socket).level, Level::Ok);
    let finding = agent(Err("another agent answers on /run/a.sock: stop it".to_owned()), socket);
    assert_eq!(finding, Finding::note("neighbours", "another agent answers on /run/a.sock", "stop it"));
}

#[test]
fn devices_that_skip_the_host_side_are_known_by_name_and_kind() {
    let named = |name: &str| shortcuts(&[link(name, 1500)]);
    assert!(named("cilium_host")[0].found.starts_with("Cilium: "));
    assert!(named("lxc12ab")[0].found.starts_with("Cilium: "));
    assert!(named("bpfout.cali")[0].found.starts_with("Calico with eBPF: "));
    // Without eBPF Calico routes as everybody does.
    assert!(named("cali12ab").is_empty() && named("veth0").is_empty());
    let netkit = Link { netkit: true, ..link("nk0", 1500) };
    assert!(shortcuts(&[netkit])[0].found.starts_with("nk0 is a netkit device"));
}

#[test]
fn rules_against_invalid_packets_are_noted_with_whose_they_are() {
    let ufw = "-A ufw-before-input -m conntrack --ctstate INVALID -j DROP\n";
    let found = invalid(ufw).unwrap();
    assert_eq!((found.level, found.remedy.unwrap().as_str()), (Level::Note, "nothing to do"));
    assert!(found.found.contains("(there are rules of ufw)"), "{}", found.found);
    let nft = "table inet firewalld {\n\t\tct state invalid drop\n";
    assert!(invalid(nft).unwrap().found.contains("firewalld"));
    assert!(invalid("\t\tct state { invalid } counter packets 0 bytes 0 drop\n").is_some());
    assert_eq!(
        invalid("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n:DOCKER - [0:0]\n"),
        None
    );
    assert_eq!(invalid(""), None);
}

#[test]
fn balanced_services_are_noted() {
    let header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
    assert_eq!(ipvs(header), None);
    let one = format!("{header}TCP  0A600001:01BB rr\n  -> 0A000001:192B      Masq    1      0          0\n");
    assert!(ipvs(&one).unwrap().found.starts_with("IPVS balances services"));
}
