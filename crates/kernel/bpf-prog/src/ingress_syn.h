/* SPDX-License-Identifier: Apache-2.0
 *
 * A peer opens a connection to the unit: authenticate its token, authorize it,
 * remember its nonce (kind 1).
 */
#ifndef TRIREME_INGRESS_SYN_H
#define TRIREME_INGRESS_SYN_H

#include "handshake.h"

/* An initiator that is refused by name. Everybody else is a stranger. */
static __always_inline enum answer stranger(struct packet *p, struct pu *pu, union tap *tap,
					    struct moment *now, struct punt_case *why)
{
	struct refusal_key key = { .slot = pu->slot, .port = p->dst_port };
	struct place place = { .by_token = 1 };
	struct refusal *refusal;

	copy((__u64 *)key.token, tap->token);
	refusal = bpf_map_lookup_elem(&refusals, &key);
	if (!refusal || refusal->epoch != pu->epoch || now->wall >= refusal->until)
		return ask(why, PUNT_UNKNOWN);
	place.slot = refusal->peer_slot;
	place.generation = refusal->peer_generation;
	return refuse(why->key, now, DIRECTION_INGRESS, p->dst_port, &place, refusal->reason,
		      refusal->rule);
}

/* The keys under which the SYN's MAC verifies with this token of ours. */
static __always_inline struct pair *vouched(union tap *tap, struct own *own, struct peer *peer,
					    struct moment *now)
{
	const __u64 none[2] = { 0, 0 };
	struct pair *pair;

	if (!is_current(own, now))
		return 0;
	pair = pair_of(own->key, peer->key, ROLE_RESPONDER);
	return pair && has_mac(tap, pair->initiator, words(own->token), none) ? pair : 0;
}

static __always_inline enum answer again(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					 union tap *tap, struct entry *e, struct punt_case *why)
{
	enum answer answer;

	if (!same(words(e->connection.peer_token), tap->token) ||
	    !same(words(e->answering.peer_nonce), tap->nonce))
		return ask_answering(why);
	answer = pass_bare(skb, p, pu, tap, COUNT_FAST_SYN_TO);
	return answer == ASK ? ask_answering(why) : answer;
}

static __noinline enum answer ingress_syn(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					  struct punt_case *why)
{
	struct scratch *s = take_scratch();
	struct own *own = 0;
	struct pair *pair = 0;
	struct answering *a;
	struct verdict *verdict;
	struct entry *e;
	struct peer *peer;
	struct moment now;
	union tap *tap;
	enum answer answer;
	__u32 holds, seat = 0, state;

	why->isn = p->seq;
	if (!s || !(pu->flags & PU_FAST))
		return ask(why, PUNT_SYN);
	tap = &s->tap;
	if (!is_exactly(skb, p, TCP_SYN) || !read_tap(skb, p, tap, TAP_SYN))
		return ask(why, PUNT_UNKNOWN);
	look_at_clock(&now, pu);
	peer = peer_of(tap->token, &now);
	if (!peer)
		return stranger(p, pu, tap, &now, why);
	if (carries_other_options(skb, p))
		return ask(why, PUNT_SYN);
	verdict = verdict_of(pu, peer->slot, peer->generation, p->dst_port, DIRECTION_INGRESS);
	if (!verdict)
		return ask(why, PUNT_SYN);
	if (verdict->reason) {
		struct place place = { .slot = peer->slot, .generation = peer->generation };

		return refuse(why->key, &now, DIRECTION_INGRESS, p->dst_port, &place,
			      verdict->reason, verdict->rule);
	}
	if (opening_of(why)) {
		state = state_of(why->half_word);
		if (state == STATE_SYN_SENT)
			return ask_opening(why);
		if (state == STATE_ELSEWHERE)
			return ask(why, PUNT_SYN);
	}
	e = answering_of(why);
	if (e)
		return again(skb, p, pu, tap, e, why);

	if (tap->flags & TAP_MAC) {
		/* Two tokens, unrolled: the one that the peer means says so by its MAC. */
		own = &pu->own[0];
		pair = vouched(tap, own, peer, &now);
		if (!pair) {
			own = &pu->own[1];
			pair = vouched(tap, own, peer, &now);
		}
	}
	holds = pair != 0;
	if (!pair) {
		own = choose_own(pu, peer->own_key, &now);
		if (!own)
			return ask(why, PUNT_SYN);
		pair = pair_of(own->key, peer->key, ROLE_RESPONDER);
		if (!pair)
			return ask(why, PUNT_SYN);
	}
	if (own != &pu->own[0] && !now.away && renews(pu, peer))
		return ask(why, PUNT_RENEWAL);

	if (!within_quota(&now, pu->slot, ROLE_RESPONDER, holds))
		return ask(why, PUNT_TABLE_FULL);
	e = new_entry(now.boot, &seat);
	if (!e) {
		give_back(&now, pu->slot, ROLE_RESPONDER);
		return ask(why, PUNT_TABLE_FULL);
	}
	a = &e->answering;
	e->key = *why->key;
	e->bucket = why->hash & bucket_mask;
	e->until = now.boot / 1000000000ULL + ANSWERING_LIFE;
	e->isn = p->seq;
	e->attached = 0;
	e->connection.epoch = pu->epoch;
	e->connection.syn_ack = 0;
	e->connection.peer_slot = peer->slot;
	e->connection.peer_generation = peer->generation;
	copy((__u64 *)e->connection.peer_token, tap->token);
	a->holds = holds;
	a->rule = verdict->rule;
	copy((__u64 *)a->own_token, words(own->token));
	copy((__u64 *)a->peer_nonce, tap->nonce);
	copy(a->initiator, pair->initiator);
	copy(a->responder, pair->responder);
	make_nonce((__u64 *)a->own_nonce);
	if (!publish(e, seat, answering_tag(why->hash, why->isn) | STATE_SYN_RECEIVED, now.boot)) {
		give_back(&now, pu->slot, ROLE_RESPONDER);
		return ask(why, PUNT_TABLE_FULL);
	}
	/* What stays behind if this fails is outlived soon: its nonce never left. */
	answer = pass_bare(skb, p, pu, tap, COUNT_FAST_SYN_TO);
	return answer == ASK ? ask(why, PUNT_SYN) : answer;
}

#endif
