/* SPDX-License-Identifier: Apache-2.0
 *
 * Layouts of what the programs know about identities and handshakes; the Rust
 * side is fast.rs in the crate trireme-bpf-abi. Times are nanoseconds of the
 * wall clock, computed from the boot clock and the offset in `clock`.
 */
#ifndef TRIREME_HANDSHAKE_ABI_H
#define TRIREME_HANDSHAKE_ABI_H

/* Largest token and credential together. */
#define ATTACHED_MAX 1080

/* What is attached where a peer may not hold the token; key: token id. */
struct own_token {
	__u16 len; /* token and credential */
	__u16 token_len;
	__u32 checksum; /* unfolded sum of the bytes, as bpf_csum_diff makes it */
	__u8 bytes[ATTACHED_MAX];
};
_Static_assert(sizeof(struct own_token) == 1088, "own_token");

/* A peer that has shown a MAC; key: token id. */
struct peer {
	__u32 slot;
	__u32 generation;
	__u64 until;
	__u8 key[16];
	__u8 own_key[16]; /* key of ours that its node used last */
	__u8 tried_key[16]; /* newest key of ours for which a renewal was begun */
};
_Static_assert(sizeof(struct peer) == 64, "peer");

enum role { ROLE_INITIATOR = 0, ROLE_RESPONDER = 1 };

struct pair_key {
	__u8 own[16];
	__u8 peer[16];
	__u32 role; /* of the unit */
	__u32 pad;
};
_Static_assert(sizeof(struct pair_key) == 40, "pair_key");

struct pair {
	__u64 initiator[2]; /* MAC keys, as little-endian words */
	__u64 responder[2];
};
_Static_assert(sizeof(struct pair) == 32, "pair");

enum direction { DIRECTION_INGRESS = 0, DIRECTION_EGRESS = 1 };

struct verdict_key {
	__u32 slot;
	__u32 peer_slot;
	__be16 port; /* the responder's own */
	__u8 direction;
	__u8 protocol;
};
_Static_assert(sizeof(struct verdict_key) == 12, "verdict_key");

struct verdict {
	__u32 epoch;
	__u32 generation;
	__u16 rule;
	__u16 reason; /* 0: accepted */
};
_Static_assert(sizeof(struct verdict) == 12, "verdict");

struct destination_key {
	__u32 slot;
	__be16 port;
	__u16 pad;
	__u8 address[16];
};
_Static_assert(sizeof(struct destination_key) == 24, "destination_key");

/* Where identity is shown; an empty peer means: attach the token, no MAC. */
struct destination {
	__u32 epoch;
	__u32 pad;
	__u8 peer[16];
	__u8 own_token[16]; /* the token of ours that the peer holds */
};
_Static_assert(sizeof(struct destination) == 40, "destination");

struct refusal_key {
	__u32 slot;
	__be16 port;
	__u16 pad;
	__u8 token[16];
};
_Static_assert(sizeof(struct refusal_key) == 24, "refusal_key");

struct refusal {
	__u32 epoch;
	__u16 rule;
	__u16 reason;
	__u64 until;
	__u32 peer_slot;
	__u32 peer_generation;
};
_Static_assert(sizeof(struct refusal) == 24, "refusal");

/* What an entry of the programs' table is. */
enum state {
	STATE_FREE = 0,
	STATE_BUSY = 1, /* somebody writes it */
	STATE_SYN_SENT = 2,
	STATE_ELSEWHERE = 3, /* the engine has this handshake of the unit's */
	STATE_SYN_RECEIVED = 4,
	STATE_SYN_ACK_SENT = 5,
	STATE_CONNECTION = 6, /* of an initiator without FLAG_CONFIRMED: it proves itself */
	STATE_CLOSING = 7,
};

/* Of an initiator's handshake. */
struct opening {
	__u8 own_token[16];
	__u8 own_key[16];
	__u8 own_nonce[16];
	__u8 peer_nonce[16];
	__u8 tcp[60]; /* the SYN's header */
	__u8 tcp_len;
	__u8 syns; /* sent so far */
	__u8 hop_limit;
	__u8 traffic_class;
};
_Static_assert(sizeof(struct opening) == 128, "opening");
_Static_assert(offsetof(struct opening, tcp) == 64, "tcp");

/* Of a responder's. */
struct answering {
	__u8 own_token[16];
	__u8 own_nonce[16];
	__u8 peer_nonce[16];
	__u64 initiator[2]; /* MAC keys */
	__u64 responder[2];
	__u16 rule;
	__u8 holds; /* the initiator holds the own token */
	__u8 pad[5];
};
_Static_assert(sizeof(struct answering) == 88, "answering");

/* A handshake as it is handed over. */
struct half_open {
	__u32 isn;
	__u32 epoch;
	__u32 syn_ack;
	__u8 state;
	__u8 pad[3];
	__u8 peer_token[16];
	union {
		struct opening opening;
		struct answering answering;
	};
};
_Static_assert(sizeof(struct half_open) == 160, "half_open");
_Static_assert(offsetof(struct half_open, opening) == 32, "opening");

/* A connection from its SYN to its end, in one place: five cache lines, of which
 * established segments need two. */
struct entry {
	struct flow_key key;
	__u64 word; /* what it is; see table.h */
	struct connection connection;
	__u32 until; /* of handshakes: seconds of the boot clock */
	__u32 isn;
	__u32 bucket;
	/* The SYN carried the whole token; ELSEWHERE: which agent's it is; of an initiator's
	 * connection: the epoch of its SYN. */
	__u32 attached;
	union {
		struct opening opening;
		struct answering answering;
	};
};
_Static_assert(sizeof(struct entry) == 320, "entry");
_Static_assert(offsetof(struct entry, word) == 40, "word");
_Static_assert(offsetof(struct entry, connection) == 48, "connection");
_Static_assert(offsetof(struct entry, opening) == 192, "opening");

/* What user space wants done with the programs' table: the frame of a test run. */
enum order_kind {
	ORDER_READ = 0, /* what is held of one connection is written behind the order */
	ORDER_YIELD = 1, /* it is forgotten: the map says what it is from now on */
	ORDER_IDLE = 2, /* connections without a packet since then go to the map */
	ORDER_UNIT = 3, /* what is held of a unit is forgotten */
	ORDER_SETTLED = 4, /* connections of any bucket may lie in the map */
};
struct order {
	__u32 kind;
	__u32 edge; /* key of the unit's state */
	__u32 from; /* first entry */
	__u32 count;
	__u64 before;
	struct flow_key key;
	struct connection held;
};
_Static_assert(sizeof(struct order) == 192, "order");
_Static_assert(offsetof(struct order, held) == 64, "held");

/* Unfinished handshakes of one unit and role in two windows of 2^35 ns. */
struct quota {
	__u64 window;
	__s64 now;
	__s64 before;
	__u64 max;
};
_Static_assert(sizeof(struct quota) == 32, "quota");

/* Punts for unknown senders, by a hash of their address, in a window. */
struct source {
	__u64 window;
	__u64 count;
};
_Static_assert(sizeof(struct source) == 16, "source");
#define SOURCES 4096

/* Equal flow events are added up until user space has read them. */
struct event_key {
	__u32 slot;
	__u32 peer_slot;
	__u32 peer_generation;
	__be16 port; /* the responder's own */
	__u16 reason;
	__u16 rule;
	__u8 direction;
	__u8 refused; /* peer_slot is one of a refusal */
	__u8 local[16];
	__u8 remote[16];
};
_Static_assert(sizeof(struct event_key) == 52, "event_key");

struct event {
	__u64 starts;
	__u64 refused;
	__u64 ends;
	__u64 packets_from;
	__u64 bytes_from;
	__u64 packets_to;
	__u64 bytes_to;
	__u64 first; /* nanoseconds of the boot clock */
	__u64 last;
};
_Static_assert(sizeof(struct event) == 72, "event");

/* Written by user space every second; what is older than ALIVE_NANOS means
 * that nobody reads the rings. */
struct clock {
	__u64 alive_at; /* boot clock */
	__u64 wall_offset; /* wall clock less boot clock, wrapping */
	__u32 events; /* which of the two maps of events is written to */
	__u32 agent; /* how many agents there have been */
};
_Static_assert(sizeof(struct clock) == 24, "clock");
#define ALIVE_NANOS 3000000000ULL

#endif
