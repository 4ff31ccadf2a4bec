/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is it, and may it? Tokens, keys, verdicts, nonces and quotas of
 * handshakes, as user space has written them.
 */
#ifndef TRIREME_IDENTITY_H
#define TRIREME_IDENTITY_H

#include "record.h"
#include "tap.h"

static __always_inline const __u64 *words(const __u8 *bytes)
{
	return (const __u64 *)bytes;
}

/* Unpredictable and never the same twice: a keyed function of a counter per
 * CPU, with a key that is new at every load. */
static __noinline int make_nonce(__u64 *nonce)
{
	const __u64 key[2] = { nonce_key[0], nonce_key[1] };
	__u32 zero = 0;
	struct turns *turns = bpf_map_lookup_elem(&turns_of, &zero);

	if (!turns)
		return -1;
	SIP_START(key);
	SIP_WORD(++turns->nonces);
	SIP_WORD((__u64)bpf_get_smp_processor_id());
	SIP_END(nonce, 2);
	return 0;
}

static __always_inline int is_current(const struct own *own, struct moment *now)
{
	return !is_zero(words(own->token)) && now->wall < own->until;
}

/* The unit's token that the peer's node used last, else its newest. */
static __always_inline struct own *choose_own(struct pu *pu, const __u8 *key, struct moment *now)
{
	if (same(words(pu->own[1].key), words(key)) && is_current(&pu->own[1], now))
		return &pu->own[1];
	return is_current(&pu->own[0], now) ? &pu->own[0] : 0;
}

static __always_inline void take_own(struct choice *choice, const struct own *own)
{
	copy((__u64 *)choice->token, words(own->token));
	copy((__u64 *)choice->key, words(own->key));
}

/* True once per peer and key of ours: the engine shows it the newest token. */
static __always_inline int renews(struct pu *pu, struct peer *peer)
{
	const __u64 *newest = words(pu->own[0].key);

	if (same(words(peer->own_key), newest) || same(words(peer->tried_key), newest))
		return 0;
	copy((__u64 *)peer->tried_key, newest);
	return 1;
}

static __always_inline struct pair *pair_of(const __u8 *own, const __u8 *peer, __u32 role)
{
	struct pair_key key = { .role = role };

	copy((__u64 *)key.own, words(own));
	copy((__u64 *)key.peer, words(peer));
	return bpf_map_lookup_elem(&pair_keys, &key);
}

static __always_inline struct peer *peer_of(const __u64 *token, struct moment *now)
{
	struct token_id id = { { token[0], token[1] } };
	struct peer *peer = bpf_map_lookup_elem(&peers, &id);

	return peer && now->wall < peer->until ? peer : 0;
}

/* What the policy in force says about a peer; none: ask the engine. */
static __always_inline struct verdict *verdict_of(struct pu *pu, __u32 peer_slot, __u32 generation,
						  __be16 port, __u8 direction)
{
	struct verdict_key key = { .slot = pu->slot,
				   .peer_slot = peer_slot,
				   .port = port,
				   .direction = direction,
				   .protocol = IPPROTO_TCP };
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &key);

	return verdict && verdict->epoch == pu->epoch && verdict->generation == generation ? verdict : 0;
}

static __always_inline struct quota *quota_of(struct moment *now, __u32 slot, __u32 role)
{
	__u64 window = now->boot >> 35;
	__u32 key = slot * 2 + role;
	struct quota *quota = bpf_map_lookup_elem(&quotas, &key);

	if (quota && quota->window != window) {
		quota->before = quota->window + 1 == window ? quota->now : 0;
		quota->now = 0;
		quota->window = window;
	}
	return quota;
}

/* Room for one more unfinished handshake? The last quarter is for senders that
 * have shown a MAC. */
static __always_inline int within_quota(struct moment *now, __u32 slot, __u32 role,
					int proven)
{
	struct quota *quota = quota_of(now, slot, role);
	__s64 max;

	if (!quota)
		return 0;
	max = proven ? quota->max : quota->max - quota->max / 4;
	if (quota->now + quota->before >= max)
		return 0;
	__sync_fetch_and_add(&quota->now, 1);
	return 1;
}

static __always_inline void give_back(struct moment *now, __u32 slot, __u32 role)
{
	struct quota *quota = quota_of(now, slot, role);

	if (quota)
		__sync_fetch_and_add(&quota->now, -1);
}

#endif
