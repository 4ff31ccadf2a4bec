/* SPDX-License-Identifier: Apache-2.0
 *
 * TAP messages: reading, checking their form, and their MAC (docs/spec/tap.md,
 * sections 3 and 4).
 */
#ifndef TRIREME_TAP_H
#define TRIREME_TAP_H

#include "parse.h"
#include "siphash.h"

#define TAP_MAGIC 0x54415001
#define TAP_HEADER 80
#define TAP_SYN 1
#define TAP_SYN_ACK 2
#define TAP_ACK 3
#define TAP_TOKEN 1 /* flags */
#define TAP_MAC 2

/* Bytes 56 to 76 are one of `end`, `echo`; nothing here needs padding. */
union tap {
	__u64 word[10];
	struct {
		__be32 magic;
		__u8 kind;
		__u8 flags;
		__be16 len;
		__u64 token[2];
		__u64 nonce[2];
		__u64 mac[2];
		__u8 family;
		__u8 protocol;
		__be16 port;
		__u32 address[4];
		__be16 token_len;
		__be16 credential_len;
	};
	struct {
		__u64 head[7];
		__u64 echo[2];
		__u32 zero[2];
	};
};
_Static_assert(sizeof(union tap) == TAP_HEADER, "tap");
_Static_assert(offsetof(union tap, mac) == 40, "mac");
_Static_assert(offsetof(union tap, family) == 56, "family");
_Static_assert(offsetof(union tap, token_len) == 76, "token_len");

static __always_inline int same(const __u64 *a, const __u64 *b)
{
	return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

static __always_inline int is_zero(const __u64 *a)
{
	return (a[0] | a[1]) == 0;
}

static __always_inline void copy(__u64 *to, const __u64 *from)
{
	to[0] = from[0];
	to[1] = from[1];
}

/* The MAC under `key` of a message for the holder of `token` and `nonce`. */
static __noinline int tap_mac(__u64 *out, const __u64 *key, const __u64 *tap, const __u64 *token,
			      const __u64 *nonce)
{
	SIP_START(key);

	SIP_WORD(tap[0]);
	SIP_WORD(tap[1]);
	SIP_WORD(tap[2]);
	SIP_WORD(tap[3]);
	SIP_WORD(tap[4]);
	SIP_WORD(tap[7]);
	SIP_WORD(tap[8]);
	SIP_WORD(tap[9]);
	SIP_WORD(token[0]);
	SIP_WORD(token[1]);
	SIP_WORD(nonce[0]);
	SIP_WORD(nonce[1]);
	SIP_END(out, 12);
	return 0;
}

static __always_inline int has_mac(union tap *tap, const __u64 *key, const __u64 *token,
				   const __u64 *nonce)
{
	__u64 mac[2];

	tap_mac(mac, key, tap->word, token, nonce);
	return same(mac, tap->mac);
}

/* The end that a responder attests must be a host's. */
static __always_inline int is_host(const union tap *tap)
{
	const __u32 *a = tap->address;
	__u8 first = a[0] & 0xff;

	if (tap->family == 4)
		return a[0] && !(a[1] | a[2] | a[3]) && (first & 0xf0) != 0xe0;
	return (a[0] | a[1] | a[2] | a[3]) && first != 0xff;
}

/* Non-zero: the payload is a message of this kind in its one valid form. */
static __always_inline int read_tap(struct __sk_buff *skb, struct packet *p, union tap *tap,
				    __u8 kind)
{
	__u32 token_len, credential_len;

	if (p->payload_len < TAP_HEADER || p->payload_len > TAP_HEADER + ATTACHED_MAX ||
	    bpf_skb_load_bytes(skb, p->payload_offset, tap, TAP_HEADER))
		return 0;
	if (tap->magic != bpf_htonl(TAP_MAGIC) || tap->kind != kind ||
	    tap->flags & ~(TAP_TOKEN | TAP_MAC) || bpf_ntohs(tap->len) != p->payload_len)
		return 0;
	token_len = bpf_ntohs(tap->token_len);
	credential_len = bpf_ntohs(tap->credential_len);
	if (TAP_HEADER + token_len + credential_len != p->payload_len ||
	    !(tap->flags & TAP_TOKEN) != !token_len || (!token_len && credential_len))
		return 0;
	if (kind == TAP_ACK)
		return tap->flags == TAP_MAC && !tap->zero[0];
	if (tap->protocol != IPPROTO_TCP || (tap->family != 4 && tap->family != 6))
		return 0;
	if (kind == TAP_SYN)
		return !(tap->port | tap->address[0] | tap->address[1] | tap->address[2] |
			 tap->address[3]);
	return tap->flags & TAP_MAC && tap->port && is_host(tap);
}

static __always_inline void begin_tap(union tap *tap, __u8 kind, __u8 flags)
{
	__builtin_memset(tap, 0, sizeof(*tap));
	tap->magic = bpf_htonl(TAP_MAGIC);
	tap->kind = kind;
	tap->flags = flags;
	tap->len = bpf_htons(TAP_HEADER);
}

#endif
