/* SPDX-License-Identifier: Apache-2.0
 *
 * A responder answers the unit's SYN: authenticate it, authorize it and its own
 * end, prepare the proof.
 */
#ifndef TRIREME_INGRESS_SYN_ACK_H
#define TRIREME_INGRESS_SYN_ACK_H

#include "handshake.h"

static __always_inline enum answer bare(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					struct punt_case *why)
{
	enum answer answer;

	if (p->payload_len == 0)
		return pass(pu, COUNT_SYN_ACK_REPEATED);
	answer = pass_bare(skb, p, pu, 0, COUNT_SYN_ACK_REPEATED);
	return answer == ASK ? ask(why, PUNT_SYN) : answer;
}

/* A SYN-ACK that no handshake of ours waits for. One more behind an established
 * handshake makes the stack acknowledge again, bare: it shows no identity and
 * changes nothing. */
static __always_inline enum answer unasked(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					   struct entry *e, struct punt_case *why)
{
	__u32 state = e ? state_of(why->half_word) : STATE_FREE;
	struct connection *c = find_connection(why);

	if (c && !(why->flags & PUNT_CLOSING) && c->role == ROLE_INITIATOR &&
	    c->class == CLASS_IDENTITY && c->epoch == pu->epoch && c->proof_seq == p->ack &&
	    state != STATE_ELSEWHERE && is_exactly(skb, p, TCP_SYN | TCP_ACK) &&
	    !carries_other_options(skb, p))
		return bare(skb, p, pu, why);
	/* What is acknowledged tells the engine whether the path takes payloads for data. */
	return state == STATE_SYN_SENT ? ask_opening(why) : ask(why, PUNT_SYN);
}

/* What proving itself took, its next SYN may rely on: the responder holds our token. */
static __noinline int remember(struct packet *p, struct pu *pu, struct opening *o, union tap *tap)
{
	struct destination_key at = { .slot = pu->slot, .port = p->src_port };
	struct destination *d;

	copy((__u64 *)at.address, words(p->src));
	d = bpf_map_lookup_elem(&destinations, &at);
	if (d && same(words(d->peer), tap->token))
		copy((__u64 *)d->own_token, words(o->own_token));
	return 0;
}

static __noinline enum answer ingress_syn_ack(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					      struct punt_case *why)
{
	struct scratch *s = take_scratch();
	struct entry *e = opening_of(why);
	struct place place = {};
	struct connection *c;
	struct opening *o;
	struct verdict *verdict;
	struct peer *peer;
	struct pair *pair;
	struct moment now;
	union tap *tap, *proof;
	enum edited edited;
	__be16 port;
	__u32 begun;

	if (!s || !(pu->flags & PU_FAST))
		return ask(why, PUNT_SYN);
	tap = &s->tap;
	proof = &s->proof;
	if (!e || state_of(why->half_word) != STATE_SYN_SENT || p->ack != e->isn + 1)
		return unasked(skb, p, pu, e, why);
	o = &e->opening;
	c = &e->connection;
	if (!is_exactly(skb, p, TCP_SYN | TCP_ACK) || carries_other_options(skb, p) ||
	    !read_tap(skb, p, tap, TAP_SYN_ACK))
		return ask_opening(why);
	look_at_clock(&now, pu);
	peer = peer_of(tap->token, &now);
	if (!peer)
		return ask_opening(why);
	pair = pair_of(o->own_key, peer->key, ROLE_INITIATOR);
	if (!pair || !has_mac(tap, pair->responder, words(o->own_token), words(o->own_nonce)))
		return ask_opening(why);
	port = tap->port;
	verdict = verdict_of(pu, peer->slot, peer->generation, port, DIRECTION_EGRESS);
	if (!verdict)
		return ask_opening(why);
	place.slot = peer->slot;
	place.generation = peer->generation;
	if (verdict->reason)
		return refuse(why->key, &now, DIRECTION_EGRESS, port, &place, verdict->reason,
			      verdict->rule);
	begin_tap(proof, TAP_ACK, TAP_MAC);
	copy(proof->token, words(o->own_token));
	copy(proof->nonce, words(o->own_nonce));
	copy(proof->echo, tap->nonce);
	tap_mac(proof->mac, pair->initiator, proof->word, tap->token, tap->nonce);

	begun = c->epoch;
	begin_connection(c, pu, &place, e->isn);
	c->role = ROLE_INITIATOR;
	c->flags = FLAG_DATA_SEEN;
	c->syn_ack = 0;
	c->attested_port = bpf_ntohs(port);
	c->attested_family = tap->family;
	__builtin_memcpy(c->attested_address, tap->address, 16);
	copy((__u64 *)c->proof_mac, proof->mac);
	copy((__u64 *)c->peer_token, tap->token);
	copy((__u64 *)o->peer_nonce, tap->nonce);
	if (!exchange(e, why->half_word, flow_tag(why->hash) | STATE_CONNECTION))
		return ask(why, PUNT_SYN);
	edited = strip(skb, p, tap);
	if (edited != EDITED) {
		exchange(e, flow_tag(why->hash) | STATE_CONNECTION, why->half_word);
		return edited == UNCHANGED ? ask_opening(why) : DROPPED;
	}
	if (!same(words(peer->own_key), words(o->own_key)))
		copy((__u64 *)peer->own_key, words(o->own_key));
	if (e->attached)
		remember(p, pu, o, tap);
	e->attached = begun;
	give_back(&now, pu->slot, ROLE_INITIATOR);
	tell(why->key, &now, DIRECTION_EGRESS, port, &place, 0, verdict->rule);
	return pass(pu, COUNT_FAST_SYN_ACK_TO);
}

#endif
