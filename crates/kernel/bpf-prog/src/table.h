/* SPDX-License-Identifier: Apache-2.0
 *
 * The programs' own table: a connection has one entry from its SYN to its end and
 * is changed in place. Entries lie in a ring and are found by buckets of tags.
 *
 * The ring is written in turn, so memory is used in a row, and what is oldest is
 * overwritten: closing connections, and handshakes that were outlived. A handshake
 * that is alive is passed over. A connection that is alive moves to the map
 * `connections`, which never forgets: most connections are over by then.
 *
 * The word of an entry says what it is: the tag's hash, and the state below it. Who
 * exchanges it owns the change. Tags only lead to entries: one whose entry has
 * another word by now leads nowhere.
 */
#ifndef TRIREME_TABLE_H
#define TRIREME_TABLE_H

#include "scratch.h"

#define WAYS 7

/* Seconds; longer than the longest pause between a stack's repetitions of a SYN. */
#define OPENING_LIFE 70
#define ANSWERING_LIFE 40

/* A tag: hash, whether the connection is closing, and the entry's seat in the ring. */
#define HASH_SHIFT 25
#define HASH (~0ULL << HASH_SHIFT)
#define CLOSING_TAG (1ULL << 24)
#define SEAT (CLOSING_TAG - 1)
#define STATE SEAT /* of a word, in place of the seat */

/* In `attached` of a connection: the engine has its handshake. */
#define HANDED_OVER (~0U)

struct bucket {
	__u64 tag[WAYS]; /* zero: free */
	__u32 turn;
	__u32 settled; /* connections of this bucket may lie in the map */
};
_Static_assert(sizeof(struct bucket) == 64, "bucket");

/* One less than the number of buckets and of entries: powers of two. */
volatile const __u32 bucket_mask = 16383;
volatile const __u32 seat_mask = 32767;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct bucket);
	ALIGNED;
	PINNED;
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct entry);
	ALIGNED;
	PINNED;
} entries SEC(".maps");

/* Seats given out so far. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	PINNED;
} seats SEC(".maps");

/* Each CPU takes so many at once. */
#define SEATS_AT_ONCE 16

/* How many seats are looked at before a handshake is left to the engine. */
#define TRIES 16

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

/* Under the unit's secret: nobody can aim at a bucket, and what was stored for a unit
 * that had the slot before is not found. The unit's own address is not a stranger's choice. */
static __always_inline __u64 hash_of(const struct flow_key *key, const struct pu *pu)
{
	const __u64 *word = (const __u64 *)key;
	__u64 local = word[1] * 0xc2b2ae3d27d4eb4fULL ^ word[2];

	return mix(mix(mix(mix(pu->incarnation, word[0]), word[3]), word[4]), local);
}

/* What the tag begins with: of an initiator's handshake and of connections, and of a
 * responder's handshake. All of a flow lie in one bucket. */
static __always_inline __u64 flow_tag(__u64 hash)
{
	return hash & HASH;
}

static __always_inline __u64 answering_tag(__u64 hash, __u32 isn)
{
	return mix(hash, (__u64)isn << 32 | 2) & HASH;
}

static __always_inline __u32 state_of(__u64 word)
{
	return word & STATE;
}

static __always_inline int same_flow(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

static __always_inline struct bucket *bucket_of(__u32 number)
{
	return bpf_map_lookup_elem(&buckets, &number);
}

static __always_inline struct entry *entry_at(__u32 seat)
{
	return bpf_map_lookup_elem(&entries, &seat);
}

/* The tag that begins like this; zero: none. */
static __always_inline __u64 tag_in(const struct bucket *b, __u64 wanted)
{
	__u64 tag;

#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		tag = b->tag[i];
		if ((tag & HASH) == wanted)
			return tag;
	}
	return 0;
}

/* The entry that a tag leads to. As long as its word stays what it was, it is the flow's. */
static __always_inline struct entry *find(const struct flow_key *key, __u64 hash, __u64 wanted,
					  __u64 *word)
{
	struct bucket *b = bucket_of(hash & bucket_mask);
	struct entry *e;
	__u64 tag;

	if (!b)
		return 0;
	tag = tag_in(b, wanted);
	if (!tag)
		return 0;
	e = entry_at(tag & SEAT);
	if (!e)
		return 0;
	*word = e->word;
	if ((*word & HASH) != wanted || !same_flow(&e->key, key))
		return 0;
	return e;
}

/* The same as a function of its own, for handshakes: the verifier sees it once. */
static __noinline struct entry *look_up(const struct flow_key *key, __u64 hash, __u64 wanted,
					__u64 *word)
{
	return key && word ? find(key, hash, wanted, word) : 0;
}

/* Non-zero: this change, and no other, followed the word. */
static __always_inline int exchange(struct entry *e, __u64 from, __u64 to)
{
	return __sync_val_compare_and_swap(&e->word, from, to) == from;
}

/* The verifier would follow each way by itself; a number from memory is one. */
static __always_inline __u32 one_of(__u32 way)
{
	struct scratch *s = take_scratch();

	if (!s)
		return 0;
	s->cursor = way;
	way = s->cursor & 7;
	return way < WAYS ? way : 0;
}

/* Exchanges a tag that begins like `wanted`, if there is one. */
static __noinline int retag(__u32 bucket, __u64 wanted, __u64 clear, __u64 set)
{
	struct bucket *b = bucket_of(bucket);
	__u32 way = WAYS;
	__u64 tag;

	if (!b)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		way = (b->tag[i] & HASH) == wanted ? i : way;
	if (way == WAYS)
		return 0;
	way = one_of(way);
	tag = b->tag[way];
	if ((tag & HASH) == wanted)
		__sync_val_compare_and_swap(&b->tag[way], tag, (tag & ~clear) | set);
	return 0;
}

/* Forgets an entry, if it is still what it was. */
static __always_inline int forget(struct entry *e, __u64 word)
{
	__u32 bucket = e->bucket;

	if (!exchange(e, word, STATE_FREE))
		return 0;
	retag(bucket, word & HASH, ~0ULL, 0);
	return 1;
}

/* Moves a connection to the map; zero if that is full or somebody was faster. What is
 * asked about meanwhile is found in either place. */
static __noinline int settle(struct entry *e, __u64 word)
{
	__u32 number;
	struct bucket *b;

	if (!e)
		return 0;
	number = e->bucket;
	b = bucket_of(number);
	if (!b)
		return 0;
	b->settled = 1;
	if (bpf_map_update_elem(&connections, &e->key, &e->connection, BPF_ANY))
		return 0;
	if (exchange(e, word, STATE_BUSY))
		return 1;
	/* Still ours, so it has just ended; else user space has said what is in the map. */
	if (!((e->word ^ word) & HASH))
		bpf_map_delete_elem(&connections, &e->key);
	return 0;
}

/* Frees an entry that is BUSY. */
static __always_inline void vacate(struct entry *e, __u64 word)
{
	retag(e->bucket, word & HASH, ~0ULL, 0);
	__sync_lock_test_and_set(&e->word, STATE_FREE);
}

static __always_inline int is_outlived(const struct entry *e, __u64 boot)
{
	return e->until < boot / 1000000000ULL;
}

/* May this entry be written over? Then it is BUSY. */
static __always_inline int take_seat(struct entry *e, __u64 boot)
{
	__u64 word = e->word;
	__u32 state = state_of(word);

	if (state == STATE_BUSY)
		return 0;
	if (state == STATE_CONNECTION) {
		/* Who proves itself still needs what the map does not hold. */
		if (!(e->connection.flags & FLAG_CONFIRMED) && !is_outlived(e, boot))
			return 0;
		if (!settle(e, word))
			return 0;
		retag(e->bucket, word & HASH, ~0ULL, 0);
		return 1;
	}
	if (state >= STATE_SYN_SENT && state <= STATE_SYN_ACK_SENT) {
		if (!is_outlived(e, boot) || !exchange(e, word, STATE_BUSY))
			return 0;
		retag(e->bucket, word & HASH, ~0ULL, 0);
		return 1;
	}
	/* The tag of a closing connection stays until its way is needed. */
	return exchange(e, word, STATE_BUSY);
}

static __always_inline struct entry *next_seat(__u32 *seat)
{
	__u32 zero = 0;
	struct turns *turns = bpf_map_lookup_elem(&turns_of, &zero);
	__u64 *given, next;

	if (!turns)
		return 0;
	next = turns->seat;
	if (!(next & (SEATS_AT_ONCE - 1))) {
		given = bpf_map_lookup_elem(&seats, &zero);
		if (!given)
			return 0;
		next = __sync_fetch_and_add(given, SEATS_AT_ONCE);
	}
	turns->seat = next + 1;
	*seat = next & seat_mask;
	return entry_at(*seat);
}

/* An entry to write, BUSY by now, and its seat; none if those at hand are all alive. */
static __noinline struct entry *new_entry(__u64 boot, __u32 *seat)
{
	struct entry *e;

	if (!seat)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < TRIES; i++) {
		e = next_seat(seat);
		if (!e)
			return 0;
		if (take_seat(e, boot))
			return e;
	}
	return 0;
}

/* A way whose entry is not what its tag says, or may be written over, is free. */
static __always_inline int is_vacant(struct entry *e, __u64 tag, __u64 boot)
{
	__u64 word = e->word;

	/* Whoever writes it may be about to give it this tag again. */
	if (state_of(word) == STATE_BUSY)
		return 0;
	if ((word & HASH) != (tag & HASH))
		return 1;
	if (!take_seat(e, boot))
		return 0;
	e->word = STATE_FREE;
	return 1;
}

/* The way to write a tag to: its own, a free one, that of the oldest closing connection,
 * else the next in turn if its entry can go; WAYS if there is none. */
static __noinline __u32 way_for(struct bucket *b, __u64 tag, __u64 boot)
{
	__u64 held, oldest = 0, age, *given;
	__u32 way, zero = 0;
	struct entry *e;

	if (!b)
		return WAYS;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		if ((b->tag[i] & HASH) == (tag & HASH))
			return i;
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		if (!b->tag[i])
			return i;
	given = bpf_map_lookup_elem(&seats, &zero);
	if (!given)
		return WAYS;
#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		/* How far its seat lies behind the youngest one of any CPU, and which way it is; zero if it
		 * is not closing. */
		held = b->tag[i];
		age = ((((*given - held) & seat_mask) + 1) << 3 | i) * (held / CLOSING_TAG & 1);
		if (age > oldest)
			oldest = age;
	}
	if (oldest)
		return oldest & 7;
	way = one_of(b->turn++ % WAYS);
	held = b->tag[way];
	e = entry_at(held & SEAT);
	return e && is_vacant(e, held, boot) ? way : WAYS;
}

/* Makes an entry that was written findable. Zero: its bucket is full of what is alive. */
static __always_inline int link(__u32 bucket, __u64 tag, __u64 boot)
{
	struct bucket *b = bucket_of(bucket);
	__u32 way;
	__u64 held;

	if (!b)
		return 0;
	way = way_for(b, tag, boot);
	if (way >= WAYS)
		return 0;
	way = one_of(way);
	held = b->tag[way];
	return __sync_val_compare_and_swap(&b->tag[way], held, tag) == held;
}

/* Shows an entry that was of the same flow before: its tag is there, and may say that it was closing. */
static __always_inline void publish_again(struct entry *e, __u64 word)
{
	__sync_lock_test_and_set(&e->word, word);
	retag(e->bucket, word & HASH, CLOSING_TAG, 0);
}

/* Shows an entry that was BUSY. Zero if there is no room for its tag; then it is free again. */
static __always_inline int publish(struct entry *e, __u32 seat, __u64 word, __u64 boot)
{
	__u32 bucket = e->bucket;

	__sync_lock_test_and_set(&e->word, word);
	if (link(bucket, (word & HASH) | seat, boot))
		return 1;
	exchange(e, word, STATE_FREE);
	return 0;
}

#endif
