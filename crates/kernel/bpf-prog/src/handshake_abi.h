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

enum opening_state {
	OPENING_SYN_SENT = 0,
	OPENING_PROVING = 1,
	OPENING_ELSEWHERE = 2, /* the engine has this handshake */
};

/* An initiator's handshake; key: flow_key. */
struct opening {
	__u32 isn;
	__u32 epoch;
	__u8 state;
	__u8 syns; /* sent so far */
	__u8 hop_limit;
	__u8 traffic_class;
	__u32 tcp_len; /* of the SYN's header */
	__u64 created;
	__u8 own_token[16];
	__u8 own_key[16];
	__u8 own_nonce[16];
	__u8 peer_token[16];
	__u8 peer_nonce[16];
	__u8 tcp[60];
	/* The SYN carried the whole token; with the engine: which agent's it is. */
	__u32 attached;
};
_Static_assert(sizeof(struct opening) == 168, "opening");
_Static_assert(offsetof(struct opening, own_token) == 24, "own_token");
_Static_assert(offsetof(struct opening, tcp) == 104, "tcp");

struct answering_key {
	struct flow_key flow;
	__u32 isn;
	__u32 pad;
};
_Static_assert(sizeof(struct answering_key) == 48, "answering_key");

enum answering_state { ANSWERING_SYN_RECEIVED = 0, ANSWERING_SYN_ACK_SENT = 1 };

/* A responder's handshake. */
struct answering {
	__u32 isn;
	__u32 epoch;
	__u8 state;
	__u8 holds; /* the initiator holds the own token */
	__u16 rule;
	__u32 syn_ack;
	__u32 peer_slot;
	__u32 peer_generation;
	__u64 created;
	__u8 own_token[16];
	__u8 own_nonce[16];
	__u8 peer_token[16];
	__u8 peer_nonce[16];
	__u64 initiator[2]; /* MAC keys */
	__u64 responder[2];
};
_Static_assert(sizeof(struct answering) == 128, "answering");
_Static_assert(offsetof(struct answering, own_token) == 32, "own_token");

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
	__u64 table_key; /* of the hashes of the tables; drawn once and kept */
};
_Static_assert(sizeof(struct clock) == 32, "clock");
#define ALIVE_NANOS 3000000000ULL

#endif
