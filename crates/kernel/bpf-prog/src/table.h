/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of handshakes and closing connections: buckets of a few ways in
 * arrays, found by a keyed hash of the flow. It needs no list and no lock that a
 * flood could fight for, all tags of a flow share a cache line, and user space
 * never looks into it.
 *
 * Few handshakes are under way at a time, and a line of memory that was used a
 * moment ago is four times as fast: each has a bucket among the first few of the
 * table, and one anywhere for when that is full.
 *
 * A handshake is never pushed out by another: two buckets without a free or an
 * outlived way send the packet to the engine. Closing connections replace the
 * older one of their bucket, and lie in rings, one per CPU, in the order of their
 * ends: memory is written in a row, and what is oldest is forgotten.
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
 * for: a look in vain costs one line of a small map. The tag of a closing
 * connection has its place in the lower bits. */
#define BUSY 2
#define PLACE_BITS 24
#define PLACE ((1ULL << PLACE_BITS) - 1)

struct tags {
	__u64 handshake[WAYS];
	__u64 closing[CLOSING_WAYS];
	__u64 turn;
	__u64 spilled; /* until then, handshakes that found no room here may be in their other bucket */
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

/* Closing connections of each CPU: a share of the map, written to in turn. */
volatile const __u32 closing_share = 8192;

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
	return (mix(hash, 3) | 1ULL << PLACE_BITS) & ~PLACE;
}

/* The one that is tried first. */
#define NEAR_BUCKETS 256
static __always_inline __u32 near_bucket_of(__u64 hash)
{
	return hash & (NEAR_BUCKETS - 1) & bucket_mask;
}

/* The other one, never among those that are tried first: they fill up together. */
static __always_inline __u32 bucket_of(__u64 hash)
{
	__u32 bucket = hash >> 32 & bucket_mask;

	return bucket < NEAR_BUCKETS ? (bucket | NEAR_BUCKETS) & bucket_mask : bucket;
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

/* The way with this tag, WAYS if there is none. */
static __always_inline __u32 way_of(const struct tags *t, __u64 tag)
{
	__u32 way = WAYS;

#pragma unroll
	for (int i = 0; i < WAYS; i++)
		way = t->handshake[i] == tag ? i : way;
	return way;
}

/* The handshake with this tag. While the tag stands in `*at`, it is the flow's. */
static __always_inline struct handshake *find_handshake(const struct answering_key *key, __u64 hash,
							__u64 tag, __u64 **at)
{
	__u32 bucket = near_bucket_of(hash), way;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	struct handshake *h;

	if (!t)
		return 0;
	way = way_of(t, tag);
	if (way == WAYS && t->spilled && t->spilled >= bpf_ktime_get_boot_ns()) {
		bucket = bucket_of(hash);
		t = bpf_map_lookup_elem(&tags, &bucket);
		if (!t)
			return 0;
		way = way_of(t, tag);
	}
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

/* A closing connection, and where its tag was found. */
struct found {
	struct connection *connection;
	__u64 *at;
	__u64 tag;
};

static __always_inline int find_closing(const struct flow_key *key, __u64 hash, struct found *found)
{
	__u32 bucket = bucket_of(hash), place;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	__u64 tag = closing_tag(hash);
	struct closing *c;

	if (!t)
		return 0;
	found->at = &t->closing[0];
	found->tag = t->closing[0];
	if ((found->tag & ~PLACE) != tag) {
		found->at = &t->closing[1];
		found->tag = t->closing[1];
	}
	if ((found->tag & ~PLACE) != tag)
		return 0;
	place = found->tag & PLACE;
	c = bpf_map_lookup_elem(&closing, &place);
	if (!c || !same_flow(&c->key, key))
		return 0;
	found->connection = &c->connection;
	return 1;
}

/* Forgets what a tag stands for, if it still stands. */
static __always_inline void forget(__u64 *at, __u64 tag)
{
	__sync_val_compare_and_swap(at, tag, 0);
}

/* A new connection on the tuple, or one that lives again, ends what was closing. */
static __always_inline void forget_closing(const struct flow_key *key, __u64 hash)
{
	struct found found;

	if (find_closing(key, hash, &found))
		forget(found.at, found.tag);
}

/* The way of this bucket to write to: the handshake's own, a free one, or the next
 * in turn if it is outlived; none if there is no room, or if another program is
 * faster. */
static __always_inline struct handshake *take_way(__u32 bucket, __u64 tag, __u64 boot, __u64 **at)
{
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	struct handshake *h;
	__u32 way, index;
	int occupied;
	__u64 held;

	if (!t)
		return 0;
	way = way_of(t, tag);
	way = way == WAYS ? way_of(t, 0) : way;
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

/* The same in the first bucket, else in the other. */
static __always_inline struct handshake *take_place(__u64 hash, __u64 tag, __u64 boot, __u64 **at)
{
	__u32 near = near_bucket_of(hash), other = bucket_of(hash);
	struct tags *t = bpf_map_lookup_elem(&tags, &near), *spill;
	struct handshake *h;
	__u32 way;

	if (!t)
		return 0;
	if (t->spilled >= boot) {
		spill = bpf_map_lookup_elem(&tags, &other);
		way = spill ? way_of(spill, tag) : WAYS;
		if (spill && way < WAYS)
			forget(&spill->handshake[one_of(way)], tag);
	}
	h = take_way(near, tag, boot, at);
	if (h)
		return h;
	t->spilled = boot + OPENING_LIFE;
	return take_way(other, tag, boot, at);
}

/* Zero if there is no room. */
static __noinline int store_opening(const struct answering_key *key, __u64 hash,
				    const struct opening *o)
{
	__u64 tag = opening_tag(hash), *at;
	struct handshake *h = take_place(hash, tag, o->created, &at);

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
	struct handshake *h = take_place(hash, tag, a->created, &at);

	if (!h)
		return 0;
	h->key = *key;
	h->until = a->created + ANSWERING_LIFE;
	h->answering = *a;
	__sync_lock_test_and_set(at, tag);
	return 1;
}

/* Zero if there is no ring for this CPU. */
static __noinline int store_closing(const struct flow_key *key, __u64 hash,
				    const struct connection *connection)
{
	__u32 bucket = bucket_of(hash), zero = 0, way, place;
	struct tags *t = bpf_map_lookup_elem(&tags, &bucket);
	struct turns *turns = bpf_map_lookup_elem(&turns_of, &zero);
	__u64 tag = closing_tag(hash);
	struct closing *c;

	if (!t || !turns || !closing_share)
		return 0;
	place = bpf_get_smp_processor_id() * closing_share + turns->closing++ % closing_share;
	c = bpf_map_lookup_elem(&closing, &place);
	if (!c)
		return 0;
	c->key = *key;
	c->connection = *connection;
	if ((t->closing[0] & ~PLACE) == tag)
		way = 0;
	else if ((t->closing[1] & ~PLACE) == tag)
		way = 1;
	else
		way = t->turn++ & 1;
	way = one_of(way) & (CLOSING_WAYS - 1);
	__sync_lock_test_and_set(&t->closing[way], tag | place);
	return 1;
}

#endif
