//! How protocols and ports are written.

use trireme_identity::Protocol;
use trireme_policy::{Service, ServiceError};

#[test]
fn every_form_of_a_service_reads_back_as_written() {
    for text in [
        "80/tcp",
        "1/tcp",
        "58/udp",
        "8000-8100/tcp",
        "0/sctp",
        "udp",
        "icmp",
        "icmp/8",
        "icmp/3/4",
        "icmpv6/128",
        "47",
    ] {
        assert_eq!(text.parse::<Service>().map(|service| service.to_string()), Ok(text.to_owned()));
    }
    assert_eq!("80/6".parse::<Service>(), Ok(Service::tcp(80)));
    assert_eq!("6".parse::<Service>(), Ok(Service::any_port(Protocol::TCP)));
}

#[test]
fn a_malformed_service_is_told_what_would_be_right() {
    let error = |text: &str| text.parse::<Service>().unwrap_err();
    assert_eq!(error("80/tpc"), ServiceError::Protocol("tpc".into()));
    assert_eq!(error("tpc"), ServiceError::Protocol("tpc".into()));
    assert_eq!(error("65536/tcp"), ServiceError::Port("65536".into()));
    assert_eq!(error("http/tcp"), ServiceError::Port("http".into()));
    assert_eq!(error("90-80/tcp"), ServiceError::EmptyRange(90, 80));
    assert_eq!(error("80/icmp"), ServiceError::NoPorts(Protocol::ICMP));
    assert_eq!(error("icmp/256"), ServiceError::Icmp("256".into()));
    assert_eq!(error("80/tcp/udp"), ServiceError::Port("80/tcp/udp".into()));
    assert_eq!(error(""), ServiceError::Protocol(String::new()));
    assert_eq!(
        error("80/tpc").to_string(),
        "\"tpc\" names no protocol: write tcp, udp, sctp, dccp, udplite, icmp, icmpv6, igmp or a number from 0 to 255, as in \"80/tcp\""
    );
}
