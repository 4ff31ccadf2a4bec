//! More than there is room for.

use std::net::Ipv4Addr;

use trireme_nfqueue::{Action, Queue, QueueConfig, Received, statistics};

use crate::lab::{CONFIG, pair, queued, take};

#[test]
fn a_full_queue_drops_and_the_kernel_counts() {
    queued(7003, |buffers| {
        let mut queue = Queue::open(QueueConfig { length: 10, ..CONFIG }, buffers).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7003).into());
        for _ in 0..30 {
            // A dropped packet of a local sender is an error of the call.
            drop(sender.send_to(b"x", to));
        }
        let counted = statistics().unwrap();
        let [counted] = counted.as_slice() else { panic!("{counted:?}") };
        assert_eq!((counted.queue, counted.waiting, counted.dropped), (7, 10, 20));

        take(&mut queue, buffers, 10, |packet, verdicts| {
            assert!(verdicts.decide(packet.id, Action::Accept, None, None));
        });
        queue.flush().unwrap();
        assert_eq!((0..11).filter(|_| receiver.recv(&mut [0; 4]).is_ok()).count(), 10);
    });
}

#[test]
fn an_overrun_of_the_socket_is_told_and_the_queue_goes_on() {
    queued(7006, |buffers| {
        let mut queue = Queue::open(QueueConfig { receive_buffer: 4096, ..CONFIG }, buffers).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7006).into());
        for _ in 0..100 {
            drop(sender.send_to(&[7; 1000], to));
        }
        let mut all = Received { more: true, ..Received::default() };
        while all.more {
            let received = queue
                .receive(buffers, |packet, verdicts| {
                    assert!(verdicts.decide(packet.id, Action::Drop, None, None));
                })
                .unwrap();
            all.overrun |= received.overrun;
            all.packets += received.packets;
            all.more = received.more;
        }
        queue.flush().unwrap();
        assert!(all.overrun);
        let counted = statistics().unwrap();
        let [counted] = counted.as_slice() else { panic!("{counted:?}") };
        // What was lost does not wait for a verdict that nobody can give.
        assert_eq!(
            (counted.waiting, usize::try_from(counted.not_delivered).unwrap()),
            (0, 100 - all.packets)
        );
        assert!(counted.not_delivered > 50, "{counted:?}");

        sender.send_to(b"x", to).unwrap();
        take(&mut queue, buffers, 1, |packet, verdicts| {
            assert!(verdicts.decide(packet.id, Action::Accept, None, None));
        });
        queue.flush().unwrap();
        assert!(receiver.recv(&mut [0; 4]).is_ok());
    });
}

#[test]
fn a_thousand_verdicts_go_at_once_and_as_many_on_packets_that_are_gone_are_counted() {
    const COUNT: usize = 1000;
    queued(7007, |buffers| {
        let mut queue = Queue::open(QueueConfig { receive_buffer: 8 << 20, ..CONFIG }, buffers).unwrap();
        // As long as the loopback takes them: a refusal that repeated its verdict would not fit the buffer.
        let packet = vec![7; 60_000];
        let mut ids = Vec::new();
        for _ in 0..COUNT / 100 {
            // What waits is charged to its sender, which would wait as well.
            let (sender, _, to) = pair((Ipv4Addr::LOCALHOST, 7007).into());
            for _ in 0..100 {
                sender.send_to(b"x", to).unwrap();
            }
        }
        take(&mut queue, buffers, COUNT, |packet, verdicts| {
            ids.push(packet.id);
            assert!(verdicts.decide(packet.id, Action::Drop, None, None));
        });
        queue.flush().unwrap();
        assert_eq!(statistics().unwrap().first().unwrap().waiting, 0);

        for id in ids {
            assert!(queue.decide(id, Action::Accept, None, Some(&packet)));
        }
        queue.flush().unwrap();
        let mut all = Received { more: true, ..Received::default() };
        while all.more {
            let received = queue.receive(buffers, |_, _| {}).unwrap();
            all.refused += received.refused;
            all.overrun |= received.overrun;
            all.more = received.more;
        }
        assert_eq!((all.refused, all.overrun), (COUNT, false));
    });
}
