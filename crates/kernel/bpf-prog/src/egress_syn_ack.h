/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit answers a SYN: attach its identity, its own end and the MAC (kind 2).
 */
#ifndef TRIREME_EGRESS_SYN_ACK_H
#define TRIREME_EGRESS_SYN_ACK_H

#include "handshake.h"

/* The stack lost the acknowledgement of a handshake that is complete here (a
 * full backlog, deferred accepts) and asks for it again: no new identity is
 * shown, and nothing changes. */
static __always_inline int is_repeated(struct packet *p, struct pu *pu, struct connection *c)
{
	return c && c->role == ROLE_RESPONDER && c->epoch == pu->epoch && c->syn_ack &&
	       c->syn_ack == p->seq && c->proof_seq == p->ack;
}

static __noinline enum answer egress_syn_ack(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					     struct punt_case *why)
{
	struct scratch *s = take_scratch();
	struct own_token *own = 0;
	struct answering *a;
	struct connection *c;
	struct entry *e, *other;
	__u64 word;
	union tap *tap;
	enum edited edited;

	why->isn = p->ack - 1;
	if (!s || !(pu->flags & PU_FAST) || !is_exactly(skb, p, TCP_SYN | TCP_ACK) ||
	    p->payload_len)
		return ask(why, PUNT_SYN);
	tap = &s->tap;
	e = answering_of(why);
	if (!e) {
		c = find_connection(why);
		if (!(why->flags & PUNT_CLOSING) && is_repeated(p, pu, c) && !carries_other_options(skb, p))
			return pass(pu, COUNT_SYN_ACK_REPEATED);
		return ask(why, PUNT_SYN);
	}
	a = &e->answering;
	if (e->connection.epoch != pu->epoch || carries_other_options(skb, p))
		return ask_answering(why);
	if (!a->holds || state_of(why->half_word) != STATE_SYN_RECEIVED) {
		own = bytes_of(a->own_token);
		if (!own)
			return ask_answering(why);
	}
	begin_tap(tap, TAP_SYN_ACK, TAP_MAC);
	if (own)
		attach_lengths(tap, own);
	copy(tap->token, words(a->own_token));
	copy(tap->nonce, words(a->own_nonce));
	tap->family = p->family;
	tap->protocol = IPPROTO_TCP;
	tap->port = p->src_port;
	if (p->family == 4)
		__builtin_memcpy(tap->address, p->src + 12, 4);
	else
		__builtin_memcpy(tap->address, p->src, 16);
	tap_mac(tap->mac, a->responder, tap->word, words(e->connection.peer_token),
		words(a->peer_nonce));
	edited = append(skb, p, tap, own);
	if (edited == UNCHANGED)
		return ask_answering(why);
	e->connection.syn_ack = p->seq;
	exchange(e, why->half_word, (why->half_word & HASH) | STATE_SYN_ACK_SENT);
	other = look_up(why->key, why->hash, flow_tag(why->hash), &word);
	if (other)
		end_entry(why, pu, other, word);
	end_settled(why, pu);
	return edited == EDITED ? pass(pu, COUNT_FAST_SYN_ACK_FROM) : DROPPED;
}

#endif
