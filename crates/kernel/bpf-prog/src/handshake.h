/* SPDX-License-Identifier: Apache-2.0
 *
 * What the six steps of a handshake in the kernel share.
 */
#ifndef TRIREME_HANDSHAKE_H
#define TRIREME_HANDSHAKE_H

#include "verdict.h"

/* What a step says. ASK: `why->reason` tells the engine. */
enum answer { ASK, PASSED, DROPPED };

static __always_inline enum answer ask(struct punt_case *why, __u32 reason)
{
	why->reason = reason;
	return ASK;
}

/* The engine gets the handshake with the packet. */
static __always_inline enum answer ask_opening(struct punt_case *why)
{
	why->flags |= PUNT_HAS_OPENING;
	return ask(why, PUNT_HANDSHAKE);
}

static __always_inline enum answer ask_answering(struct punt_case *why)
{
	why->flags |= PUNT_HAS_ANSWERING;
	return ask(why, PUNT_HANDSHAKE);
}

static __always_inline enum answer pass(struct pu *pu, __u32 which)
{
	count(pu->slot, which);
	return PASSED;
}

/* A segment that the steps may edit: exactly these control bits, nothing that
 * changes its layout. */
static __always_inline int is_exactly(struct __sk_buff *skb, struct packet *p, __u32 control)
{
	return (p->flags & TCP_CONTROL) == control && p->plain && !skb->gso_size;
}

static __always_inline struct own_token *bytes_of(const __u8 *token)
{
	struct token_id id = { { words(token)[0], words(token)[1] } };

	return bpf_map_lookup_elem(&own_tokens, &id);
}

static __always_inline void attach_lengths(union tap *tap, struct own_token *own)
{
	tap->flags |= TAP_TOKEN;
	tap->len = bpf_htons(TAP_HEADER + own->len);
	tap->token_len = bpf_htons(own->token_len);
	tap->credential_len = bpf_htons(own->len - own->token_len);
}

/* A new connection on the tuple ends what was there before it: what the map holds. */
static __noinline int end_settled(struct punt_case *why, struct pu *pu)
{
	struct bucket *b = bucket_of(why->hash & bucket_mask);
	struct connection *c;

	if (!b || !b->settled)
		return 0;
	c = bpf_map_lookup_elem(&connections, why->key);
	if (!c)
		return 0;
	tell_end(why->key, pu, c, HAPPENED_END);
	bpf_map_delete_elem(&connections, why->key);
	return 0;
}

/* And what the table holds under this word. */
static __noinline int end_entry(struct punt_case *why, struct pu *pu, struct entry *e, __u64 word)
{
	if (!e)
		return 0;
	if (state_of(word) == STATE_CONNECTION)
		tell_end(why->key, pu, &e->connection, HAPPENED_END);
	return forget(e, word);
}

/* Options that may ride on a handshake of the kernel: end, no-operation,
 * segment size, window scale, selective acknowledgements, time stamps. Others
 * (Fast Open, Multipath, signatures) need more than a map to be judged. */
#define OPTIONS_MAX 16 /* no stack sends more */

struct options {
	const __u8 *tcp;
	__u32 len;
	__u32 at;
	__u32 others; /* until it has been read to its end */
};

/* One round; the verifier looks at it once, not once for every sequence of options. */
static long next_option(__u32 round __attribute__((unused)), struct options *o)
{
	__u32 at = o->at, size;
	__u8 kind;

	o->others = 0;
	if (at >= o->len || at > 58)
		return 1;
	kind = o->tcp[at];
	size = o->tcp[at + 1];
	if (kind == 0)
		return 1;
	if (kind == 1)
		size = 1;
	o->at = at + size;
	o->others = 1;
	return kind != 1 && ((kind > 5 && kind != 8) || size < 2 || at + size > o->len);
}

static __noinline int has_other_options(const __u8 *tcp, __u32 len)
{
	struct options o = { .tcp = tcp, .len = len, .at = sizeof(struct tcp_head), .others = 1 };

	bpf_loop(OPTIONS_MAX, next_option, &o, 0);
	return o.others;
}

/* The SYN's TCP header, options included, into `tcp`; zero if it does not fit. */
static __always_inline __u32 load_tcp(struct __sk_buff *skb, struct packet *p, __u8 *tcp)
{
	__u32 len = p->payload_offset - p->tcp_offset;
	__u64 bound;

	if (len < 20 || len > 60)
		return 0;
	bound = bounded(len, 63);
	if (bound > 60 || bpf_skb_load_bytes(skb, p->tcp_offset, tcp, bound))
		return 0;
	return len;
}

/* The same of a segment in hand, and whether its options can be read at all:
 * the engine refuses those that cannot. */
static __noinline int carries_other_options(struct __sk_buff *skb, struct packet *p)
{
	struct scratch *s = take_scratch();
	__u32 len = p->payload_offset - p->tcp_offset;

	if (len == sizeof(struct tcp_head) || p->usual)
		return 0;
	return !s || !load_tcp(skb, p, s->bytes) || has_other_options(s->bytes, len);
}

/* An acknowledgement that carries a header and nothing else: a proof may be that. */
static __always_inline int may_be_proof(struct __sk_buff *skb, struct packet *p)
{
	return p->payload_len == TAP_HEADER && ((p->flags & TCP_CONTROL) & ~TCP_PSH) == TCP_ACK &&
	       p->plain && !skb->gso_size && !carries_other_options(skb, p);
}

/* The segment goes on without its message. ASK: it is as it was. */
static __always_inline enum answer pass_bare(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					     union tap *tap, __u32 which)
{
	switch (strip(skb, p, tap)) {
	case EDITED:
		return pass(pu, which);
	case UNCHANGED:
		return ASK;
	default:
		return DROPPED;
	}
}

/* A peer's place, and which table of the engine's it lies in. */
struct place {
	__u32 slot;
	__u32 generation;
	__u32 by_token;
};

static __always_inline void tell(struct flow_key *flow, struct moment *now, __u32 direction,
				 __be16 port, struct place *peer, __u16 reason, __u16 rule)
{
	struct scratch *s = take_scratch();
	struct event_key *event;

	if (!s)
		return;
	event = name_event(s, flow, direction, port);
	event->peer_slot = peer->slot;
	event->peer_generation = peer->generation;
	event->refused = peer->by_token;
	event->reason = reason;
	event->rule = rule;
	happened(s, now, 0, reason ? HAPPENED_REFUSAL : HAPPENED_START);
}

/* What the entries of both ends have in common; the caller adds the rest. */
static __always_inline void begin_connection(struct connection *c, struct pu *pu, struct place *peer,
					     __u32 isn)
{
	c->epoch = pu->epoch;
	c->last_seen = bpf_ktime_get_coarse_ns();
	c->packets_from = 0;
	c->bytes_from = 0;
	c->packets_to = 0;
	c->bytes_to = 0;
	c->peer_slot = peer->slot;
	c->peer_generation = peer->generation;
	c->proof_seq = isn + 1;
	c->fin_to = 0;
	c->class = CLASS_IDENTITY;
}

static __always_inline enum answer refuse(struct flow_key *flow, struct moment *now, __u32 direction,
					  __be16 port, struct place *peer, __u16 reason, __u16 rule)
{
	tell(flow, now, direction, port, peer, reason, rule);
	count(slot_of(flow), COUNT_REFUSED);
	return DROPPED;
}

#endif
