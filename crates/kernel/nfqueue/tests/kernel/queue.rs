//! What becomes of packets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use trireme_nfqueue::{Action, Hook, Queue, QueueError, Received, statistics};

use crate::lab::{CONFIG, pair, queued, run, take};
use crate::packets::with_checksum;

#[test]
fn packets_are_dropped_passed_and_changed_as_the_verdicts_say() {
    const PORT: u16 = 7000;
    queued(PORT, |buffers| {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), (Ipv6Addr::LOCALHOST, PORT).into()] {
            let mut queue = Queue::open(CONFIG, buffers).unwrap();
            let (sender, receiver, to) = pair(address);
            for text in [b"drop", b"pass", b"edit"] {
                sender.send_to(text, to).unwrap();
            }
            take(&mut queue, buffers, 3, |packet, verdicts| {
                assert_eq!((packet.hook, packet.queue, packet.truncated_from), (Hook::LocalOut, 7, None));
                let (headers, text) = packet.bytes.split_at(packet.bytes.len() - 4);
                let edited = with_checksum([headers, b"EDIT"].concat());
                let (action, bytes) = match text {
                    b"drop" => (Action::Drop, None),
                    b"pass" => (Action::Accept, None),
                    b"edit" => (Action::Accept, Some(&edited[..])),
                    other => panic!("{other:?}"),
                };
                assert!(verdicts.decide(packet.id, action, None, bytes));
            });
            queue.flush().unwrap();

            let mut arrived = Vec::new();
            let mut buffer = [0; 16];
            while let Ok(length) = receiver.recv(&mut buffer) {
                arrived.push(String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned());
            }
            assert_eq!(arrived, ["pass", "EDIT"], "{address}");
        }
    });
}

#[test]
fn a_packet_is_decided_after_the_call_that_brought_it_as_well() {
    queued(7008, |buffers| {
        let mut queue = Queue::open(CONFIG, buffers).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7008).into());
        sender.send_to(b"x", to).unwrap();
        let mut waiting = Vec::new();
        take(&mut queue, buffers, 1, |packet, _| waiting.push(packet.id));
        queue.flush().unwrap();
        assert!(receiver.recv(&mut [0; 4]).is_err());

        for id in waiting {
            assert!(queue.decide(id, Action::Accept, None, None));
        }
        queue.flush().unwrap();
        assert!(receiver.recv(&mut [0; 4]).is_ok());
    });
}

#[test]
fn a_mark_is_set_with_the_verdict_and_seen_by_later_rules() {
    queued(7001, |buffers| {
        run("iptables -t mangle -A POSTROUTING -m mark --mark 0x40 -j DROP");
        let mut queue = Queue::open(CONFIG, buffers).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7001).into());
        for mark in [None, Some(0x40)] {
            sender.send_to(b"x", to).unwrap();
            take(&mut queue, buffers, 1, |packet, verdicts| {
                assert!(verdicts.decide(packet.id, Action::Accept, mark, None));
            });
            queue.flush().unwrap();
            assert_eq!(receiver.recv(&mut [0; 4]).is_ok(), mark.is_none());
        }
    });
}

#[test]
fn a_verdict_on_a_packet_that_is_gone_is_refused_and_counted() {
    queued(7002, |buffers| {
        let mut queue = Queue::open(CONFIG, buffers).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7002).into());
        sender.send_to(b"x", to).unwrap();
        take(&mut queue, buffers, 1, |packet, verdicts| {
            assert!(verdicts.decide(packet.id + 1, Action::Accept, None, None));
            assert!(verdicts.decide(packet.id, Action::Accept, None, None));
        });
        queue.flush().unwrap();
        assert!(receiver.recv(&mut [0; 4]).is_ok());
        assert_eq!(
            queue.receive(buffers, |_, _| {}).unwrap(),
            Received { refused: 1, ..Received::default() }
        );
    });
}

#[test]
fn nothing_passes_when_nobody_is_bound_and_what_waits_is_dropped_at_the_end() {
    queued(7004, |buffers| {
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7004).into());
        drop(sender.send_to(b"early", to));
        let mut queue = Queue::open(CONFIG, buffers).unwrap();
        sender.send_to(b"waits", to).unwrap();
        take(&mut queue, buffers, 1, |_, _| {});
        drop(queue);
        assert!(receiver.recv(&mut [0; 8]).is_err());
        assert_eq!(statistics().unwrap(), []);
    });
}

#[test]
fn a_queue_that_another_holds_is_refused_by_name() {
    queued(7005, |buffers| {
        let _first = Queue::open(CONFIG, buffers).unwrap();
        match Queue::open(CONFIG, buffers) {
            Err(QueueError::Taken(7)) => {}
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("bound twice"),
        }
    });
}
