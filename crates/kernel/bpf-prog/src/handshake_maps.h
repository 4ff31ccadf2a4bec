/* SPDX-License-Identifier: Apache-2.0
 *
 * Maps of identities and handshakes. What is LRU may forget: the engine knows
 * it or the peer repeats it. What must not be forgotten is a plain hash.
 */
#ifndef TRIREME_HANDSHAKE_MAPS_H
#define TRIREME_HANDSHAKE_MAPS_H

struct token_id {
	__u64 word[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 6144);
	__type(key, struct token_id);
	__type(value, struct own_token);
	PINNED;
} own_tokens SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct token_id);
	__type(value, struct peer);
	PINNED;
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct pair_key);
	__type(value, struct pair);
	PINNED;
} pair_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct verdict_key);
	__type(value, struct verdict);
	PINNED;
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct destination_key);
	__type(value, struct destination);
	PINNED;
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct refusal_key);
	__type(value, struct refusal);
	PINNED;
} refusals SEC(".maps");

/* slot * 2 + role */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct quota);
	PINNED;
} quotas SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOURCES);
	__type(key, __u32);
	__type(value, struct source);
	PINNED;
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
	PINNED;
} clock SEC(".maps");

/* The programs add to one of the two while user space reads the other. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct event_key);
	__type(value, struct event);
	PINNED;
} events_0 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct event_key);
	__type(value, struct event);
	PINNED;
} events_1 SEC(".maps");

/* How often each CPU did something so far. */
struct turns {
	__u64 nonces;
	__u64 seat; /* the next of the table's entries to write to */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct turns);
	PINNED;
} turns_of SEC(".maps");

/* Counters of the engine by slot << 32 | reason; used by user space alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
	PINNED;
} reasons SEC(".maps");

#endif
