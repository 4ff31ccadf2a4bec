/* SPDX-License-Identifier: Apache-2.0
 *
 * Layouts shared with user space. The Rust side is the crate trireme-bpf-abi;
 * both sides assert the same sizes and offsets. A change of any layout here
 * needs a new ABI_VERSION there.
 */
#ifndef TRIREME_ABI_H
#define TRIREME_ABI_H

#include <linux/types.h>
#include <stddef.h>

enum hook { HOOK_FROM_PU = 0, HOOK_TO_PU = 1 };

enum pu_mode { MODE_ENFORCE = 0, MODE_OFF = 1 };

enum other_protocols { OTHER_DENY = 0, OTHER_ALLOW = 1 };

enum connection_class { CLASS_IDENTITY = 0, CLASS_ADDRESS = 1 };

enum connection_flag {
	FLAG_CONFIRMED = 1 << 0, /* the responder's first non-SYN segment arrived */
	FLAG_DATA_SEEN = 1 << 1, /* data or FIN at proof_seq left once */
	FLAG_FIN_FROM = 1 << 2,
	FLAG_FIN_TO = 1 << 3, /* fin_to is valid */
};

enum punt_reason {
	PUNT_MISS = 1,
	PUNT_SYN = 2,
	PUNT_STALE_EPOCH = 3,
	PUNT_PROOF_DUPLICATE = 4,
	PUNT_UNCONFIRMED = 5,
	PUNT_FRAGMENT = 6,
	PUNT_ICMP_ERROR = 7,
	PUNT_ODD_FLAGS = 8,
	PUNT_MALFORMED = 9,
};

enum punt_flag { PUNT_HAS_CONNECTION = 1 << 0, PUNT_CLOSING = 1 << 1 };

enum counter {
	COUNT_PUNTED_FROM = 0,
	COUNT_PUNTED_TO = 1,
	COUNT_RING_FULL = 2,
	COUNT_RATE_LIMITED = 3,
	COUNT_VLAN = 4,
	COUNT_NOT_IP = 5,
	COUNT_OTHER_PROTOCOL = 6,
	COUNT_ROUTER_SPOOF = 7, /* router advertisement or redirect from a PU */
	COUNT_NO_OWNER = 8,
	COUNT_OVERSIZE = 9,
	COUNT_TRUNCATED = 10,
	COUNT_REINJECTED = 11,
	COUNT_OTHER_ALLOWED = 12,
	COUNT_FORGED = 13, /* frame on the injector without the secret */
	COUNT_MAX = 16,
};

/* Counters that belong to no PU live under this slot. */
#define SLOT_NONE 0xffffffffU

struct pu {
	__u32 slot;
	__u32 epoch;
	__u8 mode;
	__u8 other;
	__u8 pad[2];
	__u32 ifindex;
};
_Static_assert(sizeof(struct pu) == 16, "pu");

/* IPv4 addresses are IPv4-mapped; ports are in network byte order. */
struct flow_key {
	__u32 slot;
	__be16 local_port;
	__be16 remote_port;
	__u8 local[16];
	__u8 remote[16];
};
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");

struct connection {
	__u32 epoch;
	__u32 flags;
	__u32 peer_slot;
	__u32 peer_generation;
	__u32 proof_seq;
	__u32 fin_to; /* sequence number behind the FIN that went to the PU */
	__u16 attested_port;
	__u8 attested_family;
	__u8 role;
	__u8 class;
	__u8 pad[3];
	__u8 attested_address[16];
	__u8 proof_mac[16];
	__u8 peer_token[16];
	__u64 last_seen;
	__u64 packets_from;
	__u64 bytes_from;
	__u64 packets_to;
	__u64 bytes_to;
};
_Static_assert(sizeof(struct connection) == 120, "connection");
_Static_assert(offsetof(struct connection, attested_port) == 24, "attested_port");
_Static_assert(offsetof(struct connection, attested_address) == 32, "attested_address");
_Static_assert(offsetof(struct connection, proof_mac) == 48, "proof_mac");
_Static_assert(offsetof(struct connection, last_seen) == 80, "last_seen");

struct punt {
	__u32 slot;
	__u32 ifindex;
	__u32 len;
	__u16 gso_size;
	__u16 gso_segs;
	__u8 hook;
	__u8 reason;
	__u8 flags;
	__u8 pad;
	__u8 ethernet[14];
	__u8 pad2[6];
	__u64 time;
	struct connection connection;
};
_Static_assert(sizeof(struct punt) == 168, "punt");
_Static_assert(offsetof(struct punt, ethernet) == 20, "ethernet");
_Static_assert(offsetof(struct punt, time) == 40, "time");
_Static_assert(offsetof(struct punt, connection) == 48, "connection");

/* One window of 2^27 ns (134 ms); max is the number of punts in it. */
enum limit_kind { LIMIT_FROM = 0, LIMIT_TO = 1, LIMIT_ICMP = 2 };
struct limit {
	__u64 window;
	__u64 count;
	__u64 max;
};
_Static_assert(sizeof(struct limit) == 24, "limit");

struct counters {
	__u64 value[COUNT_MAX];
};
_Static_assert(sizeof(struct counters) == 128, "counters");

/* User space and the programs agree on wake-ups: none while it is awake. */
struct control {
	__u64 awake;
};
_Static_assert(sizeof(struct control) == 8, "control");

/* Trailer of a frame on the injector. */
struct ticket {
	__u64 secret[2];
	__u32 ifindex;
	__u32 mark;
};
_Static_assert(sizeof(struct ticket) == 24, "ticket");
#define TICKETS 4096

/* Where a PU is attached; read and written by user space only. */
struct edge {
	__u32 ifindex;
	__u32 flags;
	__u64 netns_device;
	__u64 netns_inode;
	__u8 name[16];
	__u8 path[216];
};
_Static_assert(sizeof(struct edge) == 256, "edge");

#endif
