//! Queues of several namespaces, and their end.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use trireme_netns::{Links, Namespace};
use trireme_nfqueue::{Action, Buffers, Queue, RawSender, Received, statistics};

use crate::lab::{CONFIG, linked, namespace, pair, run, take, wait_until};

/// The kernel ends namespaces one after another, of whichever test: one with a connection whose peer went away takes
/// minutes.
const VERY_PATIENT: Duration = Duration::from_secs(300);

#[test]
fn one_thread_serves_many_namespaces_with_one_set_of_buffers() {
    const PORT: u16 = 7020;
    let mut buffers = Buffers::new();
    let namespaces: Vec<Namespace> = (0..10).map(|_| namespace(PORT)).collect();
    let mut queues: Vec<Queue> = namespaces
        .iter()
        .map(|namespace| namespace.run(|| Queue::open(CONFIG, &mut buffers).unwrap()).unwrap())
        .collect();
    let sockets: Vec<_> = namespaces
        .iter()
        .map(|namespace| namespace.run(|| pair((Ipv4Addr::LOCALHOST, PORT).into())).unwrap())
        .collect();
    for (number, (sender, _, to)) in (0..).zip(&sockets) {
        sender.send_to(&[number; 2], to).unwrap();
    }

    // Every queue gives its packet the same number; every other one lets it pass.
    for (number, queue) in (0..).zip(&mut queues) {
        take(queue, &mut buffers, 1, |packet, verdicts| {
            assert!(packet.bytes.ends_with(&[number; 2]));
            let action = if number % 2 == 0 { Action::Accept } else { Action::Drop };
            assert!(verdicts.decide(packet.id, action, None, None));
        });
    }
    for queue in &mut queues {
        queue.flush().unwrap();
    }

    for (number, (_, receiver, _)) in (0..10_u8).zip(&sockets) {
        assert_eq!(receiver.recv(&mut [0; 2]).is_ok(), number % 2 == 0, "{number}");
    }
}

#[test]
fn a_queue_is_free_at_its_end_whoever_has_a_copy_of_its_socket() {
    let near = Namespace::anonymous().unwrap();
    near.run(|| {
        let mut buffers = Buffers::new();
        let queue = Queue::open(CONFIG, &mut buffers).unwrap();
        // What a program has that is just being started.
        let _copy = queue.as_fd().try_clone_to_owned().unwrap();
        drop(queue);
        assert_eq!(statistics().unwrap(), []);
        Queue::open(CONFIG, &mut buffers).unwrap();
    })
    .unwrap();
}

#[test]
fn a_queue_that_is_open_takes_little_memory() {
    assert!(size_of::<Queue>() <= 128, "{}", size_of::<Queue>());
}

#[test]
fn a_namespace_whose_name_is_deleted_is_served_on_and_ends_with_its_queue_and_sender() {
    let (near, far) = linked();
    let mut buffers = Buffers::new();
    let (mut queue, sender) = far
        .run(|| {
            run("iptables -A OUTPUT -p udp --dport 7021 -j NFQUEUE --queue-num 7");
            let queue = Queue::open(CONFIG, &mut buffers).unwrap();
            let (sender, _, to) = pair((Ipv4Addr::LOCALHOST, 7021).into());
            sender.send_to(b"x", to).unwrap();
            (queue, RawSender::open(0).unwrap())
        })
        .unwrap();
    // The last descriptor of the namespace, as when its name is deleted; the sockets above are closed already.
    drop(far);

    take(&mut queue, &mut buffers, 1, |packet, verdicts| {
        assert!(verdicts.decide(packet.id, Action::Accept, None, None));
    });
    queue.flush().unwrap();
    assert_eq!(queue.receive(&mut buffers, |_, _| {}).unwrap(), Received::default());

    let link_is_there = || near.run(|| Links::connect().unwrap().by_name("near0").is_ok()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(link_is_there());
    drop(queue);
    std::thread::sleep(Duration::from_millis(300));
    assert!(link_is_there());
    drop(sender);
    wait_until("the namespace ends", VERY_PATIENT, || !link_is_there());
}

#[test]
fn a_queue_whose_interfaces_are_deleted_answers_for_packets_that_are_gone() {
    let (_near, far) = linked();
    let mut buffers = Buffers::new();
    far.run(|| {
        run("iptables -A OUTPUT -p udp --dport 7022 -j NFQUEUE --queue-num 7");
        let mut queue = Queue::open(CONFIG, &mut buffers).unwrap();
        let sender = std::net::UdpSocket::bind("198.51.100.2:0").unwrap();
        sender.send_to(b"x", "198.51.100.1:7022").unwrap();
        let mut ids = Vec::new();
        take(&mut queue, &mut buffers, 1, |packet, _| {
            assert_ne!(packet.out_device, 0);
            ids.push(packet.id);
        });
        run("ip link delete far0");

        for id in ids {
            assert!(queue.decide(id, Action::Accept, None, None));
        }
        queue.flush().unwrap();

        // The kernel dropped what waited to go out by the interface.
        assert_eq!(
            queue.receive(&mut buffers, |_, _| {}).unwrap(),
            Received { refused: 1, ..Received::default() }
        );
    })
    .unwrap();
}
