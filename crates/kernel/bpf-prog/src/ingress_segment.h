/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit is sent anything but a SYN: check the proof (kind 3), and let no data
 * through before it.
 */
#ifndef TRIREME_INGRESS_SEGMENT_H
#define TRIREME_INGRESS_SEGMENT_H

#include "handshake.h"

static __always_inline int is_proof(struct __sk_buff *skb, struct packet *p, struct entry *e,
				    struct punt_case *why, union tap *tap)
{
	struct answering *a = &e->answering;

	return state_of(why->half_word) == STATE_SYN_ACK_SENT && may_be_proof(skb, p) &&
	       read_tap(skb, p, tap, TAP_ACK) &&
	       same(tap->token, words(e->connection.peer_token)) &&
	       same(tap->nonce, words(a->peer_nonce)) && same(tap->echo, words(a->own_nonce)) &&
	       has_mac(tap, a->initiator, words(a->own_token), words(a->own_nonce));
}

static __noinline enum answer admit(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				    struct entry *e, struct punt_case *why)
{
	struct flow_key *flow = why->key;
	struct place place = {};
	struct scratch *s = take_scratch();
	struct entry *other;
	struct moment now;
	__u64 word;
	union tap *tap;
	enum edited edited;
	__u32 rule;

	if (!s || !e)
		return ask_answering(why);
	tap = &s->tap;
	if (!(pu->flags & PU_FAST) || e->connection.epoch != pu->epoch ||
	    !is_proof(skb, p, e, why, tap))
		return ask_answering(why);
	place.slot = e->connection.peer_slot;
	place.generation = e->connection.peer_generation;
	rule = e->answering.rule;
	begin_connection(&e->connection, pu, &place, e->isn);
	e->connection.role = ROLE_RESPONDER;
	e->connection.flags = FLAG_CONFIRMED;
	e->connection.attested_family = 0;
	copy((__u64 *)e->connection.proof_mac, tap->mac);
	other = look_up(flow, why->hash, flow_tag(why->hash), &word);
	if (other)
		end_entry(why, pu, other, word);
	/* Nobody else may stand at the tag that the entry is about to get, be it a tag that leads nowhere. */
	retag(e->bucket, flow_tag(why->hash), ~0ULL, 0);
	end_settled(why, pu);
	if (!exchange(e, why->half_word, flow_tag(why->hash) | STATE_CONNECTION))
		return ask(why, PUNT_MISS);
	retag(e->bucket, why->half_word & HASH, HASH, flow_tag(why->hash));
	look_at_clock(&now, pu);
	tell(flow, &now, DIRECTION_INGRESS, flow->local_port, &place, 0, rule);
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
	struct entry *e;
	__u32 state;

	why->isn = p->seq - 1;
	e = answering_of(why);
	if (e)
		return admit(skb, p, pu, e, why);
	e = opening_of(why);
	if (!e)
		return ask(why, PUNT_MISS);
	state = state_of(why->half_word);
	/* Of an older connection that the peer still has: the unit's stack resets it, and nothing else. */
	if (state == STATE_SYN_SENT && is_exactly(skb, p, TCP_ACK) && !p->payload_len &&
	    p->ack != e->isn + 1)
		return carries_other_options(skb, p) ? ask(why, PUNT_MALFORMED) :
						       pass(pu, COUNT_CHALLENGE);
	if (state != STATE_ELSEWHERE)
		return ask_opening(why);
	return ask(why, PUNT_MISS);
}

#endif
