/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit sends anything but a SYN: attach the proof (kind 3) until the responder
 * is known to have it.
 */
#ifndef TRIREME_EGRESS_SEGMENT_H
#define TRIREME_EGRESS_SEGMENT_H

#include "handshake.h"

/* An unconfirmed connection of the unit's. The proof rides on an empty
 * acknowledgement at its place; in front of anything else it is a segment of
 * its own, which the engine makes. */
static __noinline enum answer prove(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				    struct connection *c, struct punt_case *why)
{
	struct scratch *s = take_scratch();
	struct entry *e = opening_of(why);
	union tap *tap;
	enum edited edited;

	if (!s || !e || state_of(why->half_word) < STATE_CONNECTION || e->isn + 1 != c->proof_seq)
		return ask(why, PUNT_UNCONFIRMED);
	ask_opening(why);
	if (!(pu->flags & PU_FAST) || p->seq != c->proof_seq || p->payload_len ||
	    !is_exactly(skb, p, TCP_ACK) || carries_other_options(skb, p))
		return ask(why, PUNT_UNCONFIRMED);
	tap = &s->tap;
	begin_tap(tap, TAP_ACK, TAP_MAC);
	copy(tap->token, words(e->opening.own_token));
	copy(tap->nonce, words(e->opening.own_nonce));
	copy(tap->mac, words(c->proof_mac));
	copy(tap->echo, words(e->opening.peer_nonce));
	edited = append(skb, p, tap, 0);
	if (edited == UNCHANGED)
		return ask(why, PUNT_UNCONFIRMED);
	if (edited == BROKEN)
		return DROPPED;
	__sync_fetch_and_and(&c->flags, ~FLAG_DATA_SEEN);
	return pass(pu, COUNT_FAST_PROOF_FROM);
}

/* Nothing was sent or received on the tuple yet but a SYN, or nothing at all. */
static __noinline enum answer egress_unconnected(struct __sk_buff *skb, struct packet *p,
						 struct pu *pu, struct punt_case *why)
{
	struct entry *e;
	__u32 state;

	why->isn = p->ack - 1;
	if (answering_of(why))
		return ask_answering(why);
	e = opening_of(why);
	if (!e)
		return ask(why, PUNT_MISS);
	state = state_of(why->half_word);
	/* The answer to a challenge. */
	if (state == STATE_SYN_SENT && is_exactly(skb, p, TCP_RST) && !p->payload_len)
		return pass(pu, COUNT_CHALLENGE);
	if (state != STATE_ELSEWHERE)
		return ask_opening(why);
	return ask(why, PUNT_MISS);
}

#endif
