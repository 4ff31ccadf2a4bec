/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of handshakes and closing connections: buckets of a few ways in
 * arrays, found by a keyed hash of the flow. It needs no list and no lock that a
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
 * whoever puts BUSY there writes the way. Tags lie apart from what they stand
 * for: a look in vain costs one line of a small map. */
#define BUSY 2

struct tags {
	__u64 handshake[WAYS];
	__u64 closing[CLOSING_WAYS];
	__u64 turn;
	__u64 pad;
};
_Static_assert(sizeof(struct tags) == 64, "tags");
_Static_assert(sizeof(struct handshake) == 224, "handshake");
_Static_assert(sizeof(struct closing) == 168, "closing");

/* One less than the number of buckets, a power of two. */
volatile const __u32 bucket_mask = 8191;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct tags);
	PINNED;
} tags SEC(".maps");

/* Way of bucket: bucket * ways + way. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192 * WAYS);
	__type(key, __u32);
	__type(value, struct handshake);
	PINNED;
} handshakes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192 * CLOSING_WAYS);
	__type(key, __u32);
	__type(value, struct closing);
	PINNED;
} closing SEC(".maps");

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

static __always_inline __u32 bucket_of(__u64 hash)
{
	return hash >> 32 & bucket_mask;
}

static __always_inline int same_flow(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

/* The verifier would follow each way by itself; a number from memory is one. */
static __always_inline __u32 one_of(__u32 way)
{
	struct scratch *s = take_scratch();

	if (!s)
		return 0;
	s->cursor = way;
	return s->cursor & (WAYS - 1);
}

/* The handshake with this tag. While the tag stands in `*at`, it is the flow's. */
static __always_inline struct handshake *find_handshake(const struct answering_key *key, __u64 hash,
							__u64 tag, __u64 **at)
{
	__u32 bucket = bucket_of(hash), way = WAYS;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	struct handshake *h;

	if (!t)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		way = t->handshake[i] == tag ? i : way;
	if (way == WAYS)
		return 0;
	way = one_of(way);
	bucket = bucket * WAYS + way;
	h = bpf_map_lookup_elem(&handshakes, &bucket);
	if (!h || !same_flow(&h->key.flow, &key->flow))
		return 0;
	*at = &t->handshake[way];
	return h;
}

static __always_inline struct connection *find_closing(const struct flow_key *key, __u64 hash,
						       __u64 **at)
{
	__u32 bucket = bucket_of(hash), way;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	__u64 tag = closing_tag(hash);
	struct closing *c;

	if (!t)
		return 0;
	way = t->closing[0] == tag ? 0 : 1;
	if (way && t->closing[1] != tag)
		return 0;
	way = one_of(way) & (CLOSING_WAYS - 1);
	bucket = bucket * CLOSING_WAYS + way;
	c = bpf_map_lookup_elem(&closing, &bucket);
	if (!c || !same_flow(&c->key, key))
		return 0;
	*at = &t->closing[way];
	return &c->connection;
}

/* Forgets what a tag stands for, if it still stands. */
static __always_inline void forget(__u64 *at, __u64 tag)
{
	__sync_val_compare_and_swap(at, tag, 0);
}

/* A new connection on the tuple, or one that lives again, ends what was closing. */
static __always_inline void forget_closing(const struct flow_key *key, __u64 hash)
{
	__u64 *at;

	if (find_closing(key, hash, &at))
		forget(at, closing_tag(hash));
}

/* The way to write to: the handshake's own, a free one, or the next in turn if it
 * is outlived; none if there is no room, or if another program is faster. */
static __always_inline struct handshake *take_way(__u64 hash, __u64 tag, __u64 boot, __u64 **at)
{
	__u32 bucket = bucket_of(hash), way = WAYS, index;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	struct handshake *h;
	int occupied;
	__u64 held;

	if (!t)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		way = t->handshake[i] == 0 ? i : way;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		way = t->handshake[i] == tag ? i : way;
	occupied = way == WAYS;
	way = one_of(occupied ? t->turn++ : way);
	index = bucket * WAYS + way;
	h = bpf_map_lookup_elem(&handshakes, &index);
	if (!h)
		return 0;
	*at = &t->handshake[way];
	held = **at;
	if (held == BUSY || (occupied && h->until >= boot) ||
	    __sync_val_compare_and_swap(*at, held, BUSY) != held)
		return 0;
	return h;
}

/* Zero if there is no room. */
static __noinline int store_opening(const struct answering_key *key, __u64 hash,
				    const struct opening *o)
{
	__u64 tag = opening_tag(hash), *at;
	struct handshake *h = take_way(hash, tag, o->created, &at);

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
	__u64 tag = answering_tag(hash, key->isn), *at;
	struct handshake *h = take_way(hash, tag, a->created, &at);

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
				    const struct connection *connection)
{
	__u32 bucket = bucket_of(hash), way, index;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	__u64 tag = closing_tag(hash), held, *at;
	struct closing *c;

	if (!t)
		return 0;
	way = t->closing[0] == tag ? 0 : t->closing[1] == tag ? 1 : t->turn++ & 1;
	for (int attempt = 0; attempt < CLOSING_WAYS; attempt++, way ^= 1) {
		way = one_of(way) & (CLOSING_WAYS - 1);
		at = &t->closing[way];
		held = *at;
		if (held == BUSY || __sync_val_compare_and_swap(at, held, BUSY) != held)
			continue;
		index = bucket * CLOSING_WAYS + way;
		c = bpf_map_lookup_elem(&closing, &index);
		if (!c)
			return 0;
		c->key = *key;
		c->connection = *connection;
		__sync_lock_test_and_set(at, tag);
		return 1;
	}
	return 0;
}

#endif
