/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit is sent anything but a SYN: check the proof (kind 3), and let no data
 * through before it.
 */
#ifndef TRIREME_INGRESS_SEGMENT_H
#define TRIREME_INGRESS_SEGMENT_H

#include "handshake.h"

static __always_inline int is_proof(struct __sk_buff *skb, struct packet *p, struct answering *a,
				    union tap *tap)
{
	return a->state == ANSWERING_SYN_ACK_SENT && may_be_proof(skb, p) &&
	       read_tap(skb, p, tap, TAP_ACK) && same(tap->token, words(a->peer_token)) &&
	       same(tap->nonce, words(a->peer_nonce)) && same(tap->echo, words(a->own_nonce)) &&
	       has_mac(tap, a->initiator, words(a->own_token), words(a->own_nonce));
}

static __noinline enum answer admit(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				    struct answering *a, struct punt_case *why)
{
	struct flow_key *flow = &why->key->flow;
	struct place place = { .slot = a->peer_slot, .generation = a->peer_generation };
	struct scratch *s = take_scratch();
	struct connection *c;
	struct moment now;
	union tap *tap;
	enum edited edited;

	if (!s)
		return ask_answering(why, a);
	tap = &s->tap;
	if (!(pu->flags & PU_FAST) || a->epoch != pu->epoch || !is_proof(skb, p, a, tap))
		return ask_answering(why, a);
	c = begin_connection(s, pu, &place, a->isn);
	c->role = ROLE_RESPONDER;
	c->flags = FLAG_CONFIRMED;
	c->syn_ack = a->syn_ack;
	copy((__u64 *)c->proof_mac, tap->mac);
	copy((__u64 *)c->peer_token, tap->token);
	if (*why->tag != why->tag_of)
		return ask(why, PUNT_MISS);
	if (bpf_map_update_elem(&connections, flow, c, BPF_ANY)) {
		ask_answering(why, a);
		return ask(why, PUNT_TABLE_FULL);
	}
	look_at_clock(&now, pu);
	tell(flow, &now, DIRECTION_INGRESS, flow->local_port, &place, 0, a->rule);
	forget(why->tag, why->tag_of);
	give_back(&now, pu->slot, ROLE_RESPONDER);
	edited = strip(skb, p, tap);
	/* The initiator repeats what is dropped here; the proof is a duplicate then. */
	return edited == EDITED ? pass(pu, COUNT_FAST_PROOF_TO) : DROPPED;
}

/* No connection: a proof, something that came before it, or a message of the
 * responder's enforcer. */
static __always_inline enum answer ingress_unconnected(struct __sk_buff *skb, struct packet *p,
						       struct pu *pu, struct punt_case *why)
{
	struct answering *a;
	struct opening *o;

	why->key->isn = p->seq - 1;
	a = answering_of(why);
	if (a)
		return admit(skb, p, pu, a, why);
	o = opening_of(why);
	/* Of an older connection that the peer still has: the unit's stack resets it, and nothing else. */
	if (o && o->state == OPENING_SYN_SENT && is_exactly(skb, p, TCP_ACK) && !p->payload_len &&
	    p->ack != o->isn + 1)
		return pass(pu, COUNT_CHALLENGE);
	if (o && o->state != OPENING_ELSEWHERE)
		return ask_opening(why, o);
	return ask(why, PUNT_MISS);
}

#endif
