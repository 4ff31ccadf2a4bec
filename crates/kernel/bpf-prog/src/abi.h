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

/* Adopted connections are older than their unit's enforcement and are not
 * judged again. */
enum connection_class { CLASS_IDENTITY = 0, CLASS_ADDRESS = 1, CLASS_ADOPTED = 2 };

/* What happens to packets that need the agent while it is away. */
enum fail_mode { FAIL_CLOSED = 0, FAIL_LAST_KNOWN = 1, FAIL_OPEN = 2 };

enum pu_flag {
	PU_FAST = 1 << 0, /* known handshakes stay in the kernel */
	PU_KEEP = 1 << 1, /* live connections outlast changes of policy */
};

enum connection_flag {
	FLAG_CONFIRMED = 1 << 0, /* the responder's first non-SYN segment arrived */
	FLAG_DATA_SEEN = 1 << 1, /* data or FIN at proof_seq left once */
	FLAG_FIN_FROM = 1 << 2,
	FLAG_FIN_TO = 1 << 3, /* fin_to is valid */
	FLAG_ENDED = 1 << 4, /* its end was told */
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
	PUNT_UNKNOWN = 10, /* a SYN whose sender is not known here */
	PUNT_HANDSHAKE = 11, /* a handshake of the programs that they cannot go on with */
	PUNT_RENEWAL = 12, /* the peer has not been shown the unit's newest token yet */
	PUNT_TABLE_FULL = 13, /* the connection table or the unit's quota is full */
};

enum punt_flag {
	PUNT_HAS_CONNECTION = 1 << 0,
	PUNT_CLOSING = 1 << 1,
	PUNT_HAS_OPENING = 1 << 2, /* handed over: the programs have forgotten it */
	PUNT_HAS_ANSWERING = 1 << 3, /* the same */
};

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
	COUNT_FAST_SYN_FROM = 14, /* handshake segments decided here */
	COUNT_FAST_SYN_TO = 15,
	COUNT_FAST_SYN_ACK_FROM = 16,
	COUNT_FAST_SYN_ACK_TO = 17,
	COUNT_FAST_PROOF_FROM = 18,
	COUNT_FAST_PROOF_TO = 19,
	COUNT_REFUSED = 20, /* by a known verdict */
	COUNT_CUT = 21, /* live connections' packets refused after a change */
	COUNT_REJUDGED = 22, /* live connections that go on after a change */
	COUNT_AGENT_DOWN = 23,
	COUNT_FAILED_OPEN = 24,
	COUNT_UNKNOWN_LIMITED = 25,
	COUNT_FLOW_LOST = 26, /* no room for a flow event */
	COUNT_PROOF_REPEATED = 27, /* duplicate proof taken off */
	COUNT_SYN_ACK_REPEATED = 28, /* behind an established handshake */
	COUNT_CHALLENGE = 29, /* of an older connection, in the way of a new one */
	COUNT_MAX = 32,
};

/* Counters that belong to no PU live under this slot. */
#define SLOT_NONE 0xffffffffU

/* A token of the unit's own. Names of agreement keys are the first 16 bytes of
 * their public halves; times are nanoseconds of the wall clock. */
struct own {
	__u8 token[16]; /* all zero: none */
	__u8 key[16];
	__u64 until;
};
_Static_assert(sizeof(struct own) == 40, "own");

/* Size of the map `near`: interfaces are found in it by the low bits of their
 * index. An entry without interface is none. */
#define NEAR 4096

struct pu {
	__u32 slot;
	__u32 epoch;
	__u8 mode;
	__u8 other;
	__u8 fail;
	__u8 flags;
	__u32 ifindex;
	__u64 fail_nanos; /* of FAIL_LAST_KNOWN */
	__u64 incarnation; /* another number for whoever gets the slot next */
	struct own own[2]; /* newest first */
	__u64 pad[2]; /* a whole number of cache lines */
};
_Static_assert(sizeof(struct pu) == 128, "pu");
_Static_assert(offsetof(struct pu, own) == 32, "own");

/* IPv4 addresses are IPv4-mapped; ports are in network byte order. */
#define SLOT_BITS 24
struct flow_key {
	__u32 unit; /* its slot, and the IP protocol in the upper eight bits */
	__be16 local_port;
	__be16 remote_port;
	__u8 local[16];
	__u8 remote[16];
};
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");

/* What every packet needs comes first. */
struct connection {
	__u32 epoch;
	__u32 flags;
	__u64 last_seen;
	__u64 packets_from;
	__u64 bytes_from;
	__u64 packets_to;
	__u64 bytes_to;
	__u32 proof_seq;
	__u32 fin_to; /* sequence number behind the FIN that went to the PU */
	__u32 peer_slot;
	__u32 peer_generation;
	__u32 syn_ack; /* responder: sequence number of its SYN-ACK */
	__u16 attested_port;
	__u8 attested_family;
	__u8 role;
	__u8 class;
	__u8 pad[7];
	__u8 attested_address[16];
	__u8 proof_mac[16];
	__u8 peer_token[16];
};
_Static_assert(sizeof(struct connection) == 128, "connection");
_Static_assert(offsetof(struct connection, proof_seq) == 48, "proof_seq");
_Static_assert(offsetof(struct connection, attested_port) == 68, "attested_port");
_Static_assert(offsetof(struct connection, attested_address) == 80, "attested_address");

#include "handshake_abi.h"

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
	struct half_open half_open;
};
_Static_assert(sizeof(struct punt) == 336, "punt");
_Static_assert(offsetof(struct punt, ethernet) == 20, "ethernet");
_Static_assert(offsetof(struct punt, time) == 40, "time");
_Static_assert(offsetof(struct punt, connection) == 48, "connection");
_Static_assert(offsetof(struct punt, half_open) == 176, "half_open");

/* One window of 2^27 ns (134 ms); max is the number of punts in it. */
enum limit_kind { LIMIT_FROM = 0, LIMIT_TO = 1, LIMIT_ICMP = 2, LIMIT_UNKNOWN = 3 };
struct limit {
	__u64 window;
	__u64 count;
	__u64 max;
};
_Static_assert(sizeof(struct limit) == 24, "limit");

struct counters {
	__u64 value[COUNT_MAX];
};
_Static_assert(sizeof(struct counters) == 256, "counters");

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
