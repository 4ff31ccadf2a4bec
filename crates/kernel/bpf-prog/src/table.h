/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables of handshakes and of closing connections: buckets of a few ways in an
 * array, found by a keyed hash. They need no list and no lock that a flood could
 * fight for, and user space never looks into them.
 *
 * A handshake is never pushed out by another: a bucket without a free or an
 * outlived way sends the packet to the engine. Closing connections replace the
 * older one of their bucket.
 */
#ifndef TRIREME_TABLE_H
#define TRIREME_TABLE_H

#include "scratch.h"

#define WAYS 4
#define CLOSING_WAYS 2

/* Longer than the longest pause between a stack's repetitions of a SYN. */
#define OPENING_LIFE 70000000000ULL
#define ANSWERING_LIFE 40000000000ULL

/* The tag of a way is the hash of its key and never zero; zero is free. */
struct opening_bucket {
	__u64 tag[WAYS];
	__u64 lock;
	struct {
		struct flow_key key;
		struct opening value;
	} way[WAYS];
};

struct answering_bucket {
	__u64 tag[WAYS];
	__u64 lock;
	struct {
		struct answering_key key;
		struct answering value;
	} way[WAYS];
};

struct closing_bucket {
	__u64 tag[CLOSING_WAYS];
	__u64 lock;
	__u64 turn;
	struct {
		struct flow_key key;
		struct connection value;
	} way[CLOSING_WAYS];
};

/* One less than the number of buckets, a power of two. */
volatile const __u32 opening_mask = 16383;
volatile const __u32 answering_mask = 16383;
volatile const __u32 closing_mask = 8191;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct opening_bucket);
	PINNED;
} opening SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct answering_bucket);
	PINNED;
} answering SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct closing_bucket);
	PINNED;
} closing SEC(".maps");

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u64 hash_of(const struct flow_key *key)
{
	const __u64 *word = (const __u64 *)key;
	__u32 zero = 0;
	struct clock *c = bpf_map_lookup_elem(&clock, &zero);
	__u64 secret = c ? c->table_key : 0, hash = secret;

	for (int i = 0; i < 5; i++)
		hash = mix(hash, word[i]);
	return mix(hash, secret) | 1;
}

/* The same for a flow and a sequence number. */
static __always_inline __u64 hash_with(__u64 flow, __u32 isn)
{
	return mix(flow, (__u64)isn << 32 | isn) | 1;
}

static __always_inline int same_flow(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

/* While the tag of a way stands, the way is the flow's. */
/* The verifier would follow each way by itself; a number from memory is one. */
static __always_inline __u32 one_of(struct scratch *s, __u32 way)
{
	s->cursor = way;
	return s->cursor & (WAYS - 1);
}

static __always_inline struct opening *find_opening(const struct flow_key *key, __u64 hash,
						    __u64 **tag)
{
	__u32 index = hash >> 32 & opening_mask, at = WAYS;
	struct opening_bucket *b = bpf_map_lookup_elem(&opening, &index);
	struct scratch *s = take_scratch();

	if (!b || !s)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		at = b->tag[i] == hash ? i : at;
	if (at == WAYS)
		return 0;
	at = one_of(s, at);
	if (!same_flow(&b->way[at].key, key))
		return 0;
	*tag = &b->tag[at];
	return &b->way[at].value;
}

static __always_inline struct answering *find_answering(const struct answering_key *key, __u64 hash,
							__u64 **tag)
{
	__u32 index = hash >> 32 & answering_mask, at = WAYS;
	struct answering_bucket *b = bpf_map_lookup_elem(&answering, &index);
	struct scratch *s = take_scratch();

	if (!b || !s)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		at = b->tag[i] == hash ? i : at;
	if (at == WAYS)
		return 0;
	at = one_of(s, at);
	if (b->way[at].key.isn != key->isn || !same_flow(&b->way[at].key.flow, &key->flow))
		return 0;
	*tag = &b->tag[at];
	return &b->way[at].value;
}

static __always_inline struct connection *find_closing(const struct flow_key *key, __u64 hash,
						       __u64 **tag)
{
	__u32 index = hash >> 32 & closing_mask, at;
	struct closing_bucket *b = bpf_map_lookup_elem(&closing, &index);
	struct scratch *s = take_scratch();

	if (!b || !s)
		return 0;
	at = b->tag[0] == hash ? 0 : 1;
	if (at && b->tag[1] != hash)
		return 0;
	at = one_of(s, at) & (CLOSING_WAYS - 1);
	if (!same_flow(&b->way[at].key, key))
		return 0;
	*tag = &b->tag[at];
	return &b->way[at].value;
}

/* Forgets a way if it is still the flow's. */
static __always_inline void forget(__u64 *tag, __u64 hash)
{
	__sync_val_compare_and_swap(tag, hash, 0);
}

/* The way for a key: its own, a free one, or one that is outlived. */
#define FIND_WAY(bucket, hash, boot, life, at)                                     \
	do {                                                                       \
		at = WAYS;                                                         \
		for (int i = 0; i < WAYS; i++)                                     \
			at = (bucket)->tag[i] == 0 ||                              \
					     (boot) - (bucket)->way[i].value.created > (life) ? \
				     i :                                           \
				     at;                                           \
		for (int i = 0; i < WAYS; i++)                                     \
			at = (bucket)->tag[i] == (hash) ? i : at;                  \
	} while (0)

/* Zero if there is no room. */
static __noinline int store_opening(const struct flow_key *key, __u64 hash, const struct opening *o)
{
	__u32 index = hash >> 32 & opening_mask;
	struct opening_bucket *b = bpf_map_lookup_elem(&opening, &index);
	struct scratch *s = take_scratch();
	__u32 at, room;

	if (!b || !s || __sync_val_compare_and_swap(&b->lock, 0, 1))
		return 0;
	FIND_WAY(b, hash, o->created, OPENING_LIFE, at);
	room = at != WAYS;
	if (room) {
		at = one_of(s, at);
		__sync_lock_test_and_set(&b->tag[at], 0);
		b->way[at].key = *key;
		b->way[at].value = *o;
		__sync_lock_test_and_set(&b->tag[at], hash);
	}
	__sync_lock_test_and_set(&b->lock, 0);
	return room;
}

static __noinline int store_answering(const struct answering_key *key, __u64 hash,
				      const struct answering *a)
{
	__u32 index = hash >> 32 & answering_mask;
	struct answering_bucket *b = bpf_map_lookup_elem(&answering, &index);
	struct scratch *s = take_scratch();
	__u32 at, room;

	if (!b || !s || __sync_val_compare_and_swap(&b->lock, 0, 1))
		return 0;
	FIND_WAY(b, hash, a->created, ANSWERING_LIFE, at);
	room = at != WAYS;
	if (room) {
		at = one_of(s, at);
		__sync_lock_test_and_set(&b->tag[at], 0);
		b->way[at].key = *key;
		b->way[at].value = *a;
		__sync_lock_test_and_set(&b->tag[at], hash);
	}
	__sync_lock_test_and_set(&b->lock, 0);
	return room;
}

/* Zero if another program is writing into the bucket. */
static __noinline int store_closing(const struct flow_key *key, __u64 hash,
				    const struct connection *c)
{
	__u32 index = hash >> 32 & closing_mask;
	struct closing_bucket *b = bpf_map_lookup_elem(&closing, &index);
	struct scratch *s = take_scratch();
	__u32 at;

	if (!b || !s || __sync_val_compare_and_swap(&b->lock, 0, 1))
		return 0;
	at = b->tag[0] == hash ? 0 : b->tag[1] == hash ? 1 : b->turn++ & 1;
	at = one_of(s, at) & (CLOSING_WAYS - 1);
	__sync_lock_test_and_set(&b->tag[at], 0);
	b->way[at].key = *key;
	b->way[at].value = *c;
	__sync_lock_test_and_set(&b->tag[at], hash);
	__sync_lock_test_and_set(&b->lock, 0);
	return 1;
}

#endif
