/* SPDX-License-Identifier: Apache-2.0
 *
 * Step 4: pass, drop with a counter, or hand over to user space.
 */
#ifndef TRIREME_VERDICT_H
#define TRIREME_VERDICT_H

#include <linux/pkt_cls.h>
#include "edit.h"
#include "identity.h"
#include "table.h"

/* TCX_NEXT and cls_bpf's "no match": whoever stands behind us runs too. */
#define PASS (-1)
#define DROP TC_ACT_SHOT

static __always_inline int drop(__u32 slot, __u32 which)
{
	count(slot, which);
	return DROP;
}

/* Consumes without telling a local sender: a redirect to nowhere. A drop on
 * egress would reach the sender's TCP as congestion and as "not sent". */
static __always_inline int consume(void)
{
	return bpf_redirect(0, 0);
}

/* How many came before in this rate window. */
static __always_inline __u64 count_in_window(__u64 *window, __u64 *count)
{
	__u64 now = bpf_ktime_get_ns() >> 27;

	if (*window != now) {
		*window = now;
		*count = 0;
	}
	return __sync_fetch_and_add(count, 1);
}

/* Where a ring is half full, the other half is for units that ask for little. */
#define CROWDED_SHARE 16
static __always_inline int within_limit(__u32 slot, __u32 kind, void *ring)
{
	__u32 key = slot * 4 + kind;
	struct limit *limit = bpf_map_lookup_elem(&limits, &key);
	__u64 before;

	if (!limit)
		return 0;
	before = count_in_window(&limit->window, &limit->count);
	if (before < limit->max / CROWDED_SHARE)
		return 1;
	return before < limit->max && bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) <
					      bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) / 2;
}

/* Why a packet goes to user space, and what the tables knew about it. */
struct punt_case {
	struct connection *connection;
	struct entry *home; /* in which it lies; none: in the map */
	struct entry *half; /* the handshake that was found last, handed over if a flag says so */
	__u64 home_word; /* their words then */
	__u64 half_word;
	__u64 hash; /* of the flow */
	struct flow_key *key; /* in the scratch */
	__u32 isn;
	__u32 reason;
	__u32 flags;
};

/* The initiator's handshake of the flow. */
static __always_inline struct entry *opening_of(struct punt_case *why)
{
	struct entry *e = look_up(why->key, why->hash, flow_tag(why->hash), &why->half_word);
	__u32 state;

	why->half = e;
	if (!e)
		return 0;
	state = state_of(why->half_word);
	if (state == STATE_SYN_SENT || state == STATE_ELSEWHERE)
		return e;
	if (state < STATE_CONNECTION || e->connection.role != ROLE_INITIATOR ||
	    e->connection.flags & FLAG_CONFIRMED || e->attached == HANDED_OVER)
		return 0;
	return e;
}

/* The responder's that began with the sequence number in `why`. */
static __always_inline struct entry *answering_of(struct punt_case *why)
{
	struct entry *e = look_up(why->key, why->hash, answering_tag(why->hash, why->isn), &why->half_word);

	why->half = e;
	return e && e->isn == why->isn ? e : 0;
}

/* The connection of the flow, in the table or in the map. */
static __always_inline struct connection *find_connection(struct punt_case *why)
{
	struct entry *e = look_up(why->key, why->hash, flow_tag(why->hash), &why->home_word);
	__u32 state = e ? state_of(why->home_word) : STATE_FREE;

	if (!e || state < STATE_CONNECTION) {
		why->home = 0;
		why->connection = bpf_map_lookup_elem(&connections, why->key);
		return why->connection;
	}
	if (state != STATE_CONNECTION)
		why->flags |= PUNT_CLOSING;
	why->home = e;
	why->connection = &e->connection;
	return &e->connection;
}

/* Read behind the reservation, with a full barrier: user space first says that
 * it falls asleep and then looks for reservations, so one of us sees the
 * other. The default flag still skips a wake-up that is under way. */
static __always_inline __u64 wakeup(void)
{
	__u32 key = 0;
	struct control *c = bpf_map_lookup_elem(&control, &key);

	return c && __sync_fetch_and_add(&c->awake, 0) ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP;
}

/* One constant-size reservation; falls through to the next class if the
 * packet is longer. */
#define PUNT_CLASS(ring, size)                                                      \
	if (len <= (size)) {                                                        \
		record = bpf_ringbuf_reserve(ring, sizeof(struct punt) + (size), 0); \
		if (!record)                                                        \
			return drop(pu->slot, COUNT_RING_FULL);                     \
		fill(record, skb, pu, hook, len, why);                              \
		bound = bounded(len, 0xffff);                                       \
		if (bound > (size) ||                                               \
		    bpf_skb_load_bytes(skb, L3, record + 1, bound)) {               \
			bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);              \
			return drop(pu->slot, COUNT_TRUNCATED);                     \
		}                                                                   \
		bpf_ringbuf_submit(record, wakeup());                               \
		goto told;                                                          \
	}

static __always_inline void fill(struct punt *record, struct __sk_buff *skb, struct pu *pu,
				 __u32 hook, __u32 len, struct punt_case *why)
{
	record->slot = pu->slot;
	record->ifindex = skb->ifindex;
	record->len = len;
	record->gso_size = skb->gso_size;
	record->gso_segs = skb->gso_segs;
	record->hook = hook;
	record->reason = why->reason;
	record->flags = why->flags;
	record->time = bpf_ktime_get_ns();
	bpf_skb_load_bytes(skb, 0, record->ethernet, sizeof(record->ethernet));
	if (why->connection) {
		record->flags |= PUNT_HAS_CONNECTION;
		record->connection = *why->connection;
	}
	if (why->flags & (PUNT_HAS_OPENING | PUNT_HAS_ANSWERING) && why->half) {
		struct entry *e = why->half;
		struct half_open *half = &record->half_open;

		half->isn = e->isn;
		half->epoch = state_of(why->half_word) < STATE_CONNECTION ? e->connection.epoch :
									    e->attached;
		half->syn_ack = e->connection.syn_ack;
		half->state = state_of(why->half_word);
		if (half->state > STATE_CONNECTION)
			half->state = STATE_CONNECTION;
		__builtin_memcpy(half->peer_token, e->connection.peer_token, 16);
		half->opening = e->opening;
	}
}

/* Repetitions of a SYN of the unit's follow the first to the engine, as many as the
 * unit may have under way: what is refused again and again must not fill the table. */
static __always_inline void follow_elsewhere(struct packet *p, struct pu *pu, struct punt_case *why,
					     struct moment *now)
{
	__u64 word = flow_tag(why->hash) | STATE_ELSEWHERE;
	struct entry *e = look_up(why->key, why->hash, flow_tag(why->hash), &why->half_word);
	__u32 seat = 0, found = 0;

	if (e && exchange(e, why->half_word, STATE_BUSY))
		found = 1;
	else
		e = new_entry(now->boot, &seat);
	if (!e)
		return;
	e->key = *why->key;
	e->bucket = why->hash & bucket_mask;
	e->isn = p->seq;
	e->connection.epoch = pu->epoch;
	e->attached = now->agent;
	e->until = now->boot / 1000000000ULL + OPENING_LIFE;
	if (found)
		publish_again(e, word);
	else
		publish(e, seat, word, now->boot);
}

/* The connection goes to the map, unless user space has said already what becomes of it. */
static __always_inline void yield(struct punt_case *why, struct entry *home)
{
	struct bucket *b = bucket_of(why->hash & bucket_mask);

	if (!b || !exchange(home, why->home_word, STATE_BUSY))
		return;
	b->settled = 1;
	if (bpf_map_update_elem(&connections, why->key, &home->connection, BPF_NOEXIST) &&
	    !bpf_map_lookup_elem(&connections, why->key)) {
		/* No room: it stays where it is. */
		__sync_lock_test_and_set(&home->word, why->home_word);
		return;
	}
	vacate(home, why->home_word);
}

/* From here on the engine owns the handshake that it is told of. A connection stays where it
 * is until user space says what becomes of it, but for one that the unit's new SYN displaces. */
static __noinline int hand_over(struct packet *p, struct pu *pu, __u32 hook, struct punt_case *why,
				struct moment *now)
{
	struct entry *home = why->home, *half = why->half;

	if (half && why->flags & (PUNT_HAS_OPENING | PUNT_HAS_ANSWERING)) {
		if (state_of(why->half_word) >= STATE_CONNECTION)
			half->attached = HANDED_OVER;
		else
			forget(half, why->half_word);
	}
	if (hook != HOOK_FROM_PU || !(p->flags & TCP_SYN))
		return 0;
	/* Whatever becomes of it. */
	if (home && why->flags & PUNT_CLOSING)
		forget(home, why->home_word);
	if (p->flags & TCP_ACK || !(pu->flags & PU_FAST) || !why->hash ||
	    !within_quota(now, pu->slot, ROLE_INITIATOR, 0))
		return 0;
	if (home && !(why->flags & PUNT_CLOSING))
		yield(why, home);
	follow_elsewhere(p, pu, why, now);
	return 0;
}

/* What towards the unit looks like a message of an enforcer. */
static __always_inline int carries_tap(struct __sk_buff *skb, struct packet *p)
{
	union tap tap;

	if (p->payload_len == 0)
		return 0;
	if (p->flags & TCP_SYN)
		return 1;
	return p->payload_len == TAP_HEADER && read_tap(skb, p, &tap, TAP_ACK);
}

/* Nobody reads the rings: the unit's fail mode decides. */
static __always_inline int away(struct __sk_buff *skb, struct packet *p, struct pu *pu, __u32 hook,
				struct punt_case *why)
{
	if (pu->fail != FAIL_OPEN)
		return drop(pu->slot, COUNT_AGENT_DOWN);
	if (hook == HOOK_TO_PU && p->family && why->reason != PUNT_FRAGMENT &&
	    why->reason != PUNT_MALFORMED && why->reason != PUNT_ICMP_ERROR &&
	    carries_tap(skb, p) && strip(skb, p, 0) != EDITED)
		return drop(pu->slot, COUNT_AGENT_DOWN);
	count(pu->slot, COUNT_FAILED_OPEN);
	return PASS;
}

/* Senders that nobody vouches for share buckets by their address. */
static __always_inline int within_source_limit(struct packet *p)
{
	const __u64 *source = words(p->src);
	__u64 mixed = source[0] ^ nonce_key[0];
	struct source *bucket;
	__u32 index;

	/* An IPv6 host has its /64 for itself. */
	if (p->family == 4)
		mixed ^= source[1];
	mixed *= 0x9e3779b97f4a7c15ULL;
	mixed ^= mixed >> 29;
	mixed *= nonce_key[1] | 1;
	index = mixed >> 52 & (SOURCES - 1);
	bucket = bpf_map_lookup_elem(&sources, &index);
	return bucket && count_in_window(&bucket->window, &bucket->count) < source_limit;
}

static __always_inline int punt_unknown(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					const __u32 hook, struct punt_case *why, __u32 len)
{
	struct punt *record;
	__u64 bound;

	if (!within_source_limit(p) || !within_limit(pu->slot, LIMIT_UNKNOWN, &ring_unknown))
		return drop(pu->slot, COUNT_UNKNOWN_LIMITED);
	PUNT_CLASS(&ring_unknown, 128)
	PUNT_CLASS(&ring_unknown, 640)
	PUNT_CLASS(&ring_unknown, 1536)
	return drop(pu->slot, COUNT_OVERSIZE);
told:
	count(pu->slot, COUNT_PUNTED_TO);
	return consume();
}

/* Numbers from memory are one state to the verifier, whatever way led here. */
static __always_inline void forget_the_way(struct punt_case *why)
{
	struct scratch *s = take_scratch();
	__u64 known;

	if (!s)
		return;
	s->cursor = (__u64)why->flags << 32 | why->reason;
	known = s->cursor;
	why->reason = known;
	why->flags = known >> 32;
}

static __always_inline int punt(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				const __u32 hook, struct punt_case *why)
{
	void *ring = hook == HOOK_FROM_PU ? (void *)&ring_from : (void *)&ring_to;
	__u32 limit = hook == HOOK_FROM_PU ? LIMIT_FROM : LIMIT_TO;
	__u32 len = skb->len - L3;
	struct punt *record;
	__u64 bound;
	struct moment now;

	forget_the_way(why);
	look_at_clock(&now, pu);
	if (now.away)
		return away(skb, p, pu, hook, why);
	if (len == 0 || len > 65536)
		return drop(pu->slot, COUNT_OVERSIZE);
	if (hook == HOOK_TO_PU && why->reason == PUNT_UNKNOWN)
		return punt_unknown(skb, p, pu, hook, why, len);
	if (why->reason == PUNT_ICMP_ERROR)
		limit = LIMIT_ICMP;
	if (!within_limit(pu->slot, limit, ring))
		return drop(pu->slot, COUNT_RATE_LIMITED);
	PUNT_CLASS(ring, 128)
	PUNT_CLASS(ring, 640)
	PUNT_CLASS(ring, 1536)
	PUNT_CLASS(ring, 16384)
	PUNT_CLASS(ring, 65536)
	return drop(pu->slot, COUNT_OVERSIZE);
told:
	count(pu->slot, hook == HOOK_FROM_PU ? COUNT_PUNTED_FROM : COUNT_PUNTED_TO);
	hand_over(p, pu, hook, why, &now);
	return consume();
}

#endif
