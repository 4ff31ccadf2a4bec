/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of handshakes and closing connections: buckets of a few ways in an
 * array, found by a keyed hash of the flow. It needs no list and no lock that a
 * flood could fight for, all tags of a flow share a cache line, and user space
 * never looks into it.
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

struct handshake {
	struct answering_key key;
	__u64 until; /* boot clock */
	union {
		struct opening opening;
		struct answering answering;
	};
};

struct closing {
	struct flow_key key;
	struct connection connection;
};

/* A tag is the hash of what its way holds, an odd number; zero is free, and
 * whoever puts BUSY there writes the way. */
#define BUSY 2

struct bucket {
	__u64 tag[WAYS];
	__u64 closing_tag[CLOSING_WAYS];
	__u64 turn;
	__u64 pad;
	struct handshake way[WAYS];
	struct closing closing[CLOSING_WAYS];
};

_Static_assert(sizeof(struct bucket) == 64 + 4 * (48 + 8 + 168) + 2 * 168, "bucket");

/* One less than the number of buckets, a power of two. */
volatile const __u32 bucket_mask = 8191;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct bucket);
	PINNED;
} handshakes SEC(".maps");

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

/* What was stored for a unit that had the slot before is not found. */
static __always_inline __u64 hash_of(const struct flow_key *key, struct pu *pu)
{
	const __u64 *word = (const __u64 *)key;
	__u32 zero = 0;
	struct clock *c = bpf_map_lookup_elem(&clock, &zero);
	__u64 secret = c ? c->table_key : 0, hash = secret ^ pu->incarnation;

	for (int i = 0; i < 5; i++)
		hash = mix(hash, word[i]);
	return mix(hash, secret);
}

/* The tag of an initiator's handshake, of a responder's, of a closing connection. */
static __always_inline __u64 opening_tag(__u64 hash)
{
	return mix(hash, 1) | 1;
}

static __always_inline __u64 answering_tag(__u64 hash, __u32 isn)
{
	return mix(hash, (__u64)isn << 32 | 2) | 1;
}

static __always_inline __u64 closing_tag(__u64 hash)
{
	return mix(hash, 3) | 1;
}

static __always_inline struct bucket *bucket_of(__u64 hash)
{
	__u32 index = hash >> 32 & bucket_mask;

	return bpf_map_lookup_elem(&handshakes, &index);
}

static __always_inline int same_flow(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

/* The verifier would follow each way by itself; a number from memory is one. */
static __always_inline __u32 one_of(struct scratch *s, __u32 way)
{
	s->cursor = way;
	return s->cursor & (WAYS - 1);
}

/* The handshake with this tag. While the tag stands in `*at`, it is the flow's. */
static __always_inline struct handshake *find_handshake(const struct answering_key *key, __u64 hash,
							__u64 tag, __u64 **at)
{
	struct bucket *b = bucket_of(hash);
	struct scratch *s = take_scratch();
	__u32 way = WAYS;

	if (!b || !s)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		way = b->tag[i] == tag ? i : way;
	if (way == WAYS)
		return 0;
	way = one_of(s, way);
	if (!same_flow(&b->way[way].key.flow, &key->flow))
		return 0;
	*at = &b->tag[way];
	return &b->way[way];
}

static __always_inline struct connection *find_closing(const struct flow_key *key, __u64 hash,
						       __u64 **at)
{
	struct bucket *b = bucket_of(hash);
	struct scratch *s = take_scratch();
	__u64 tag = closing_tag(hash);
	__u32 way;

	if (!b || !s)
		return 0;
	way = b->closing_tag[0] == tag ? 0 : 1;
	if (way && b->closing_tag[1] != tag)
		return 0;
	way = one_of(s, way) & (CLOSING_WAYS - 1);
	if (!same_flow(&b->closing[way].key, key))
		return 0;
	*at = &b->closing_tag[way];
	return &b->closing[way].connection;
}

/* Forgets what a tag stands for, if it still stands. */
static __always_inline void forget(__u64 *at, __u64 tag)
{
	__sync_val_compare_and_swap(at, tag, 0);
}

/* The way to write to: the handshake's own, a free one, or an outlived one;
 * none if there is no room. Another program may be faster: then the next best. */
static __always_inline struct handshake *take_way(struct bucket *b, __u64 tag, __u64 boot,
						  __u64 **at)
{
	struct scratch *s = take_scratch();

	if (!s)
		return 0;
	for (int attempt = 0; attempt < 3; attempt++) {
		__u32 way = WAYS;
		__u64 held;

#pragma unroll
		for (int i = 0; i < WAYS; i++)
			way = b->tag[i] == 0 ? i : way;
		if (way == WAYS)
#pragma unroll
			for (int i = 0; i < WAYS; i++)
				way = b->tag[i] != BUSY && b->way[i].until < boot ? i : way;
#pragma unroll
		for (int i = 0; i < WAYS; i++)
			way = b->tag[i] == tag ? i : way;
		if (way == WAYS)
			return 0;
		way = one_of(s, way);
		*at = &b->tag[way];
		held = **at;
		if (held != BUSY && __sync_val_compare_and_swap(*at, held, BUSY) == held)
			return &b->way[way];
	}
	return 0;
}

/* Zero if there is no room. */
static __noinline int store_opening(const struct answering_key *key, __u64 hash,
				    const struct opening *o)
{
	struct bucket *b = bucket_of(hash);
	__u64 tag = opening_tag(hash), *at;
	struct handshake *h = b ? take_way(b, tag, o->created, &at) : 0;

	if (!h)
		return 0;
	h->key.flow = key->flow;
	h->until = o->created + OPENING_LIFE;
	h->opening = *o;
	__sync_lock_test_and_set(at, tag);
	return 1;
}

static __noinline int store_answering(const struct answering_key *key, __u64 hash,
				      const struct answering *a)
{
	struct bucket *b = bucket_of(hash);
	__u64 tag = answering_tag(hash, key->isn), *at;
	struct handshake *h = b ? take_way(b, tag, a->created, &at) : 0;

	if (!h)
		return 0;
	h->key = *key;
	h->until = a->created + ANSWERING_LIFE;
	h->answering = *a;
	__sync_lock_test_and_set(at, tag);
	return 1;
}

/* Zero if other programs are writing to both ways. */
static __noinline int store_closing(const struct flow_key *key, __u64 hash,
				    const struct connection *c)
{
	struct bucket *b = bucket_of(hash);
	struct scratch *s = take_scratch();
	__u64 tag = closing_tag(hash), held;
	__u32 way;

	if (!b || !s)
		return 0;
	way = b->closing_tag[0] == tag ? 0 : b->closing_tag[1] == tag ? 1 : b->turn++ & 1;
	for (int attempt = 0; attempt < 2; attempt++, way ^= 1) {
		way = one_of(s, way) & (CLOSING_WAYS - 1);
		held = b->closing_tag[way];
		if (held == BUSY ||
		    __sync_val_compare_and_swap(&b->closing_tag[way], held, BUSY) != held)
			continue;
		b->closing[way].key = *key;
		b->closing[way].connection = *c;
		__sync_lock_test_and_set(&b->closing_tag[way], tag);
		return 1;
	}
	return 0;
}

#endif
