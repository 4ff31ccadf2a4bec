/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit opens a connection: attach its identity (kind 1).
 */
#ifndef TRIREME_EGRESS_SYN_H
#define TRIREME_EGRESS_SYN_H

#include "handshake.h"

/* Which token and key the SYN is made with. */
struct choice {
	struct own *own;
	struct pair *pair; /* none: no MAC */
	__u32 holds;
};

/* Non-zero: the engine is asked for this reason. */
static __always_inline __u32 choose(struct pu *pu, struct destination *d, struct moment *now,
				    struct choice *choice)
{
	struct peer *peer;

	choice->pair = 0;
	choice->holds = 0;
	if (is_zero(words(d->peer))) {
		choice->own = is_current(&pu->own[0], now) ? &pu->own[0] : 0;
		return choice->own ? 0 : PUNT_SYN;
	}
	peer = peer_of(words(d->peer), now);
	if (!peer)
		return PUNT_SYN;
	choice->own = choose_own(pu, peer->own_key, now);
	if (!choice->own)
		return PUNT_SYN;
	if (!now->away && renews(pu, peer))
		return PUNT_RENEWAL;
	choice->pair = pair_of(choice->own->key, peer->key, ROLE_INITIATOR);
	choice->holds = same(words(d->own_token), words(choice->own->token));
	return choice->pair ? 0 : PUNT_SYN;
}

/* The message for the nonce and token in `o`. */
static __always_inline enum answer identify(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					    struct opening *o, struct destination *d,
					    struct choice *choice, struct punt_case *why)
{
	const __u64 none[2] = { 0, 0 };
	struct own_token *own = 0;
	struct scratch *s = take_scratch();
	union tap *tap;
	enum edited edited;

	if (!s)
		return ask(why, PUNT_SYN);
	tap = &s->tap;
	if (!choice->holds) {
		own = bytes_of(o->own_token);
		if (!own)
			return ask(why, PUNT_SYN);
	}
	begin_tap(tap, TAP_SYN, choice->pair ? TAP_MAC : 0);
	if (own)
		attach_lengths(tap, own);
	copy(tap->token, words(o->own_token));
	copy(tap->nonce, words(o->own_nonce));
	tap->family = p->family;
	tap->protocol = IPPROTO_TCP;
	if (choice->pair)
		tap_mac(tap->mac, choice->pair->initiator, tap->word, words(d->peer), none);
	edited = append(skb, p, tap, own);
	if (edited == UNCHANGED)
		return ask(why, PUNT_SYN);
	if (edited == BROKEN)
		return DROPPED;
	return pass(pu, COUNT_FAST_SYN_FROM);
}

/* The first retransmission carries the whole token, the second asks the engine. */
static __always_inline enum answer identify_again(struct __sk_buff *skb, struct packet *p,
						  struct pu *pu, struct opening *o,
						  struct destination *d, struct moment *now,
						  struct punt_case *why)
{
	struct choice choice;

	if (o->state != OPENING_SYN_SENT || o->syns != 1 || o->epoch != pu->epoch ||
	    carries_other_options(skb, p) || choose(pu, d, now, &choice))
		return ask_opening(why, o);
	/* A backend behind a service whose agent is away may know the older token only. */
	if (!choice.pair && is_current(&pu->own[1], now))
		choice.own = &pu->own[1];
	if (choice.pair && !same(words(choice.own->token), words(o->own_token)))
		return ask_opening(why, o);
	copy((__u64 *)o->own_token, words(choice.own->token));
	copy((__u64 *)o->own_key, words(choice.own->key));
	o->syns = 2;
	o->attached = 1;
	choice.holds = 0;
	return identify(skb, p, pu, o, d, &choice, why);
}

/* The agent that this handshake was handed to cannot go on with it. */
static __always_inline __u32 is_orphan(struct opening *o, struct moment *now)
{
	return now->away || o->attached != now->agent;
}

static __noinline enum answer egress_syn(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					 struct punt_case *why)
{
	struct destination_key at = { .slot = pu->slot, .port = p->dst_port };
	struct scratch *s = take_scratch();
	struct destination *d;
	struct choice choice;
	struct opening *o;
	struct moment now;
	__u32 reason, again = 0;

	if (!s || !(pu->flags & PU_FAST) || !is_exactly(skb, p, TCP_SYN) || p->payload_len)
		return ask(why, PUNT_SYN);
	look_at_clock(&now, pu);
	copy((__u64 *)at.address, words(p->dst));
	d = bpf_map_lookup_elem(&destinations, &at);
	o = opening_of(why);
	if (o && o->isn == p->seq) {
		if (o->state != OPENING_ELSEWHERE)
			return d && d->epoch == pu->epoch ?
				       identify_again(skb, p, pu, o, d, &now, why) :
				       ask_opening(why, o);
		if (!is_orphan(o, &now))
			return ask(why, PUNT_SYN);
		again = 1;
	}
	if (!d || d->epoch != pu->epoch)
		return ask(why, PUNT_SYN);
	o = &s->opening;
	o->tcp_len = load_tcp(skb, p, o->tcp);
	if (!o->tcp_len || (!p->usual && has_other_options(o->tcp, o->tcp_len)))
		return ask(why, PUNT_SYN);
	/* What an agent began that is gone goes on without asking the next. */
	now.away |= again;
	reason = choose(pu, d, &now, &choice);
	if (reason)
		return ask(why, reason);
	choice.holds &= !again;
	if (!within_quota(&now, pu->slot, ROLE_INITIATOR, 1))
		return ask(why, PUNT_TABLE_FULL);
	o->isn = p->seq;
	o->epoch = pu->epoch;
	o->state = OPENING_SYN_SENT;
	o->syns = 1;
	o->hop_limit = p->hop_limit;
	o->traffic_class = p->traffic_class;
	o->attached = !choice.holds;
	o->created = now.boot;
	copy((__u64 *)o->own_token, words(choice.own->token));
	copy((__u64 *)o->own_key, words(choice.own->key));
	if (make_nonce((__u64 *)o->own_nonce) || !store_opening(why->key, why->hash, o)) {
		give_back(&now, pu->slot, ROLE_INITIATOR);
		return ask(why, PUNT_TABLE_FULL);
	}
	end_others(why, pu);
	/* An entry that stays behind is of no use to anybody but the engine, which replaces it. */
	return identify(skb, p, pu, o, d, &choice, why);
}

#endif
