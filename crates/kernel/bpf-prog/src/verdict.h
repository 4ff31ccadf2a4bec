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
	struct opening *opening; /* handed over: the entry leaves its table */
	struct answering *answering;
	__u64 *tag; /* where the tag stands of what was found last, and that tag */
	__u64 tag_of;
	__u64 hash; /* of the flow; set where the table is asked */
	__u32 reason;
	__u32 flags;
	struct answering_key *key; /* in the scratch */
};

/* Once per packet, where the table is asked at all. */
static __always_inline void hash_flow(struct punt_case *why, struct pu *pu)
{
	if (!why->hash)
		why->hash = hash_of(&why->key->flow, pu);
}

static __always_inline struct opening *opening_of(struct punt_case *why)
{
	struct handshake *h;

	why->tag_of = opening_tag(why->hash);
	h = find_handshake(why->key, why->hash, why->tag_of, &why->tag);
	return h ? &h->opening : 0;
}

static __always_inline struct answering *answering_of(struct punt_case *why)
{
	struct handshake *h;

	why->tag_of = answering_tag(why->hash, why->key->isn);
	h = find_handshake(why->key, why->hash, why->tag_of, &why->tag);
	return h && h->key.isn == why->key->isn ? &h->answering : 0;
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
#define PUNT_CLASS(ring, size, now)                                                 \
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
		count(pu->slot, hook == HOOK_FROM_PU ? COUNT_PUNTED_FROM :          \
						       COUNT_PUNTED_TO);            \
		hand_over(p, pu, hook, why, now);                                   \
		return consume();                                                   \
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
	if (why->flags & PUNT_HAS_OPENING && why->opening)
		record->opening = *why->opening;
	else if (why->flags & PUNT_HAS_ANSWERING && why->answering)
		record->answering = *why->answering;
}

/* From here on the engine owns the handshake: what was handed over is
 * forgotten, and repetitions of a SYN of the unit's follow it, as many as the unit
 * may have under way: what is refused again and again must not fill the table. */
static __always_inline void hand_over(struct packet *p, struct pu *pu, __u32 hook,
				      struct punt_case *why, struct moment *now)
{
	if (why->flags & (PUNT_HAS_OPENING | PUNT_HAS_ANSWERING) && why->tag)
		forget(why->tag, why->tag_of);
	/* Whatever becomes of it. */
	if (hook == HOOK_FROM_PU && p->flags & TCP_SYN && why->flags & PUNT_CLOSING)
		forget_closing(&why->key->flow, why->hash);
	if (hook == HOOK_FROM_PU && (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	    pu->flags & PU_FAST && within_quota(now, pu->slot, ROLE_INITIATOR, 0)) {
		struct scratch *s = take_scratch();

		if (!s)
			return;
		__builtin_memset(&s->opening, 0, sizeof(s->opening));
		s->opening.isn = p->seq;
		s->opening.epoch = pu->epoch;
		s->opening.state = OPENING_ELSEWHERE;
		s->opening.attached = now->agent;
		s->opening.created = now->boot;
		store_opening(why->key, why->hash, &s->opening);
	}
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
	    why->reason != PUNT_OTHER &&
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
					const __u32 hook, struct punt_case *why, __u32 len,
					struct moment *now)
{
	struct punt *record;
	__u64 bound;

	if (!within_source_limit(p) || !within_limit(pu->slot, LIMIT_UNKNOWN, &ring_unknown))
		return drop(pu->slot, COUNT_UNKNOWN_LIMITED);
	PUNT_CLASS(&ring_unknown, 128, now)
	PUNT_CLASS(&ring_unknown, 640, now)
	PUNT_CLASS(&ring_unknown, 1536, now)
	return drop(pu->slot, COUNT_OVERSIZE);
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
		return punt_unknown(skb, p, pu, hook, why, len, &now);
	if (why->reason == PUNT_ICMP_ERROR)
		limit = LIMIT_ICMP;
	if (!within_limit(pu->slot, limit, ring))
		return drop(pu->slot, COUNT_RATE_LIMITED);
	PUNT_CLASS(ring, 128, &now)
	PUNT_CLASS(ring, 640, &now)
	PUNT_CLASS(ring, 1536, &now)
	PUNT_CLASS(ring, 16384, &now)
	PUNT_CLASS(ring, 65536, &now)
	return drop(pu->slot, COUNT_OVERSIZE);
}

#endif
