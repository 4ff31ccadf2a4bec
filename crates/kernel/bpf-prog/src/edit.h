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

/* Lengths from `p->ip_len` to `ip_len`, and the sum of the payload's change. */
static __always_inline int follow(struct __sk_buff *skb, struct packet *p, __u32 ip_len, __s64 sum)
{
	__u32 check = p->tcp_offset + offsetof(struct tcp_head, check), header = p->tcp_offset - L3;
	__be16 now, then;
	int failed;

	if (p->family == 4) {
		then = bpf_htons(p->ip_len);
		now = bpf_htons(ip_len);
		failed = bpf_l3_csum_replace(skb, L3 + offsetof(struct iphdr, check), then, now, 2) ||
			 bpf_skb_store_bytes(skb, L3 + offsetof(struct iphdr, tot_len), &now, 2, 0);
	} else {
		now = bpf_htons(ip_len - sizeof(struct ipv6hdr));
		failed = bpf_skb_store_bytes(skb, L3 + offsetof(struct ipv6hdr, payload_len), &now, 2, 0);
	}
	then = bpf_htons(p->ip_len - header);
	now = bpf_htons(ip_len - header);
	failed = failed || bpf_l4_csum_replace(skb, check, 0, sum, 0) ||
		 bpf_l4_csum_replace(skb, check, then, now, BPF_F_PSEUDO_HDR | 2);
	bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
	p->ip_len = ip_len;
	return failed;
}

enum edited { EDITED, UNCHANGED, BROKEN };

/* Puts a message, and the bytes of a token if there is one, behind the headers
 * of a segment without payload. BROKEN: the packet must not go on. */
static __noinline enum edited append(struct __sk_buff *skb, struct packet *p, union tap *tap,
				     struct own_token *own)
{
	__u32 at = L3 + p->ip_len, len = own ? own->len : 0, ip_len = p->ip_len + TAP_HEADER + len;
	__s64 sum;

	if (len > ATTACHED_MAX || ip_len > HANDSHAKE_MTU)
		return UNCHANGED;
	if (bpf_skb_change_tail(skb, L3 + ip_len, 0))
		return UNCHANGED;
	sum = bpf_csum_diff(0, 0, (__be32 *)tap, TAP_HEADER, own ? own->checksum : 0);
	if (bpf_skb_store_bytes(skb, at, tap, TAP_HEADER, 0))
		return BROKEN;
	if (own && len > 0) {
		__u64 bound = bounded(len, 2047);

		if (bound > ATTACHED_MAX ||
		    bpf_skb_store_bytes(skb, at + TAP_HEADER, own->bytes, bound, 0))
			return BROKEN;
	}
	return follow(skb, p, ip_len, sum) ? BROKEN : EDITED;
}

/* Sum of the payload with the sign of something taken away. */
static __always_inline __s64 payload_sum(struct __sk_buff *skb, struct packet *p, __u32 len)
{
	struct scratch *s = take_scratch();
	__s64 sum = 0;
	__u64 bound;

	if (!s || len == 0 || len > sizeof(s->bytes) - 4)
		return -1;
	bound = bounded(len, 2047);
	if (bound > sizeof(s->bytes) - 4)
		return -1;
	/* The last word is filled up with zeros: they add nothing. */
	*(__u32 *)(s->bytes + (bound & ~3ULL)) = 0;
	if (bpf_skb_load_bytes(skb, p->payload_offset, s->bytes, bound))
		return -1;
	len = (len + 3) & ~3;
	for (int i = 0; i < 3; i++) {
		__u32 size = len < CHUNK ? len : CHUNK;

		if (size == 0)
			break;
		sum = bpf_csum_diff((__be32 *)(s->bytes + i * CHUNK), size, 0, 0, sum);
		len -= size;
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
		sum = bpf_csum_diff((__be32 *)tap, TAP_HEADER, 0, 0, 0);
	else
		sum = payload_sum(skb, p, len);
	if (sum < 0 || bpf_skb_change_tail(skb, L3 + ip_len, 0))
		return UNCHANGED;
	p->payload_len = 0;
	return follow(skb, p, ip_len, sum) ? BROKEN : EDITED;
}

#endif
