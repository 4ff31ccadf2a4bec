/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting messages on segments and taking them off. Lengths and checksums
 * follow; a checksum that was wrong stays wrong, a partial one stays partial
 * (the helpers leave the payload out of those).
 */
#ifndef TRIREME_EDIT_H
#define TRIREME_EDIT_H

#include "scratch.h"

/* Largest IP packet that a message may make of a handshake segment. */
#define HANDSHAKE_MTU 1280

/* Of a message in hand, as bpf_csum_diff sums; a call costs more than the sum. */
static __always_inline __u32 sum_of(const union tap *tap)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < TAP_HEADER / 8; i++)
		sum += (tap->word[i] & 0xffffffff) + (tap->word[i] >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	/* Here, not behind the calls that follow: ten words would wait on the stack. */
	asm volatile("" : "+r"(sum));
	return sum + (sum >> 32);
}

/* The header's checksum after a change of one of its words (RFC 1624, eqn. 3). */
static __always_inline __be16 follow_v4(__be16 check, __be16 then, __be16 now)
{
	__u32 sum = (__u16)~check + (__u16)~then + now;

	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* Lengths from `p->ip_len` to `ip_len`, and the sum of the payload's change. */
static __always_inline int follow(struct __sk_buff *skb, struct packet *p, __u32 ip_len, __u32 sum)
{
	__u32 check = p->tcp_offset + offsetof(struct tcp_head, check), header = p->tcp_offset - L3;
	__be16 now, then;
	int failed;

	if (p->family == 4) {
		then = p->v4.total;
		now = bpf_htons(ip_len);
		p->v4.total = now;
		p->v4.check = follow_v4(p->v4.check, then, now);
		failed = bpf_skb_store_bytes(skb, L3 + offsetof(struct iphdr, tot_len), &p->v4,
					     sizeof(p->v4), 0);
	} else {
		now = bpf_htons(ip_len - sizeof(struct ipv6hdr));
		failed = bpf_skb_store_bytes(skb, L3 + offsetof(struct ipv6hdr, payload_len), &now, 2, 0);
	}
	then = bpf_htons(p->ip_len - header);
	now = bpf_htons(ip_len - header);
	p->ip_len = ip_len;
	return failed || bpf_l4_csum_replace(skb, check, 0, sum, 0) ||
	       bpf_l4_csum_replace(skb, check, then, now, BPF_F_PSEUDO_HDR | 2);
}

enum edited { EDITED, UNCHANGED, BROKEN };

/* Puts a message, and the bytes of a token if there is one, behind the headers
 * of a segment without payload. BROKEN: the packet must not go on. */
static __noinline enum edited append(struct __sk_buff *skb, struct packet *p, union tap *tap,
				     struct own_token *own)
{
	__u32 at = L3 + p->ip_len, len = own ? own->len : 0, ip_len = p->ip_len + TAP_HEADER + len;
	__u64 sum = sum_of(tap);

	if (len > ATTACHED_MAX || ip_len > HANDSHAKE_MTU)
		return UNCHANGED;
	if (bpf_skb_change_tail(skb, L3 + ip_len, 0))
		return UNCHANGED;
	if (bpf_skb_store_bytes(skb, at, tap, TAP_HEADER, 0))
		return BROKEN;
	if (own && len > 0) {
		__u64 bound = bounded(len, 2047);

		if (bound > ATTACHED_MAX ||
		    bpf_skb_store_bytes(skb, at + TAP_HEADER, own->bytes, bound, 0))
			return BROKEN;
		sum += own->checksum;
		sum = (sum & 0xffffffff) + (sum >> 32);
	}
	return follow(skb, p, ip_len, sum) ? BROKEN : EDITED;
}

/* Sum of the payload with the sign of something taken away. */
static __always_inline __s64 payload_sum(struct __sk_buff *skb, struct packet *p, __u32 len)
{
	struct scratch *s = take_scratch();
	__u64 bound, left;
	__s64 sum = 0;

	if (!s || len == 0 || len > sizeof(s->bytes) - 4)
		return -1;
	bound = bounded(len, 2047);
	if (bound > sizeof(s->bytes) - 4)
		return -1;
	/* The last word is filled up with zeros: they add nothing. */
	*(__u32 *)(s->bytes + (bound & ~3ULL)) = 0;
	if (bpf_skb_load_bytes(skb, p->payload_offset, s->bytes, bound))
		return -1;
	left = (len + 3) & ~3;
	for (int i = 0; i < 3 && left; i++) {
		__u64 size = left < CHUNK ? left : CHUNK;

		/* Kernels before 6.5 lose the bound that a comparison of another register gave. */
		asm volatile("" : "+r"(size));
		if (size > CHUNK)
			return -1;
		sum = bpf_csum_diff((__be32 *)(s->bytes + i * CHUNK), size, 0, 0, sum);
		left -= size;
	}
	return sum;
}

/* Takes the whole payload off: a message that is the header alone, which is at
 * hand, or any other. */
static __noinline enum edited strip(struct __sk_buff *skb, struct packet *p, union tap *tap)
{
	__u32 len = p->payload_len, ip_len = p->ip_len - len;
	__s64 sum;

	if (tap && len == TAP_HEADER)
		sum = (__u32)~sum_of(tap);
	else
		sum = payload_sum(skb, p, len);
	if (sum < 0 || bpf_skb_change_tail(skb, L3 + ip_len, 0))
		return UNCHANGED;
	p->payload_len = 0;
	return follow(skb, p, ip_len, sum) ? BROKEN : EDITED;
}

#endif
