/* SPDX-License-Identifier: Apache-2.0
 *
 * Step 1: what is this frame? Everything that cannot be read completely is a
 * kind of its own; no kind means "pass" by accident.
 */
#ifndef TRIREME_PARSE_H
#define TRIREME_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include "maps.h"

#define L3 ETH_HLEN
#define EXTENSIONS_MAX 6

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_CONTROL 0x3f /* all but the bits of ECN */

enum kind {
	KIND_TCP,
	KIND_FRAGMENT, /* of a TCP packet */
	KIND_MALFORMED, /* TCP whose lengths do not fit, or without a port */
	KIND_ICMP_ERROR,
	KIND_NEIGHBOUR, /* ARP, neighbour and multicast listener discovery */
	KIND_ROUTER, /* router advertisement or redirect */
	KIND_OTHER,
	KIND_VLAN,
	KIND_NOT_IP,
	KIND_TRUNCATED,
};

/* An IPv4 header's words that an edit writes again, from its second on. */
struct v4_words {
	__be16 total;
	__be16 id, fragment;
	__u8 ttl, protocol;
	__be16 check;
};
_Static_assert(sizeof(struct v4_words) == 10, "v4_words");

struct packet {
	__u32 ip_len; /* from the IP header on */
	__u32 tcp_offset;
	__u32 payload_offset;
	__u32 payload_len;
	__u32 seq;
	__u32 ack;
	__u8 flags;
	__u8 family; /* 4 or 6 */
	__u8 hop_limit;
	__u8 traffic_class;
	__be16 src_port, dst_port;
	__u8 src[16], dst[16];
	__u32 plain; /* no IP options or extension headers, no BIG TCP */
	__u32 usual; /* its TCP options are those of nearly every stack */
	struct v4_words v4;
};

struct tcp_head {
	__be16 src, dst;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window;
	__be16 check, urgent;
};

struct extension {
	__u8 next, length;
	__be16 fragment;
	__be32 id;
};

static __always_inline void map_v4(__u8 *to, __be32 address)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = address;
}

static __always_inline enum kind parse_icmp4(struct __sk_buff *skb, __u32 at)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, at, &type, 1))
		return KIND_TRUNCATED;
	switch (type) {
	case 5: /* redirect */
	case 9: /* router advertisement */
		return KIND_ROUTER;
	case 3:
	case 4:
	case 11:
	case 12:
		return KIND_ICMP_ERROR;
	default:
		return KIND_OTHER;
	}
}

static __always_inline enum kind parse_icmp6(struct __sk_buff *skb, __u32 at)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, at, &type, 1))
		return KIND_TRUNCATED;
	switch (type) {
	case 134: /* router advertisement */
	case 137: /* redirect */
		return KIND_ROUTER;
	case 133:
	case 135:
	case 136:
	case 130 ... 132:
	case 143:
		return KIND_NEIGHBOUR;
	case 1 ... 4:
		return KIND_ICMP_ERROR;
	default:
		return KIND_OTHER;
	}
}

static __always_inline enum kind take_tcp(struct packet *p, const struct tcp_head *tcp, __u32 at)
{
	__u32 headers = at - L3 + (tcp->offset >> 4) * 4;

	if ((tcp->offset >> 4) < 5 || headers > p->ip_len || !tcp->src || !tcp->dst)
		return KIND_MALFORMED;
	p->src_port = tcp->src;
	p->dst_port = tcp->dst;
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack);
	p->flags = tcp->flags;
	p->tcp_offset = at;
	p->payload_offset = L3 + headers;
	p->payload_len = p->ip_len - headers;
	return KIND_TCP;
}

static __always_inline enum kind parse_tcp(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	struct tcp_head tcp;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return KIND_MALFORMED;
	return take_tcp(p, &tcp, at);
}

/* Time stamps; on a SYN segment size, selective acknowledgements, time stamps and
 * window scale. Those need no second look. */
static __always_inline __u32 are_usual(const struct tcp_head *tcp, void *end)
{
	const __u32 *option = (const __u32 *)(tcp + 1);
	__u32 words = tcp->offset >> 4;

	if (words == 8 && (void *)(option + 3) <= end)
		return option[0] == bpf_htonl(0x0101080a);
	if (words == 10 && (void *)(option + 5) <= end)
		return !((option[0] ^ bpf_htonl(0x02040000)) & bpf_htonl(0xffff0000)) &
		       (option[1] == bpf_htonl(0x0402080a)) &
		       !((option[4] ^ bpf_htonl(0x01030300)) & bpf_htonl(0xffffff00));
	return 0;
}

/* The header right behind a plain IP header, read in place. */
static __always_inline enum kind parse_next_tcp(struct __sk_buff *skb, struct packet *p, void *next,
						void *end, __u32 at)
{
	struct tcp_head *tcp = next;

	if ((void *)(tcp + 1) > end)
		return parse_tcp(skb, p, at);
	p->usual = are_usual(tcp, end);
	return take_tcp(p, tcp, at);
}

static __always_inline enum kind parse_v4(struct __sk_buff *skb, struct packet *p, struct iphdr *ip,
					  void *end)
{
	__u32 header = ip->ihl * 4, total = bpf_ntohs(ip->tot_len);
	__u8 protocol = ip->protocol;

	if (ip->version != 4 || header < sizeof(*ip))
		return KIND_TRUNCATED;
	/* A packet beyond 64 KiB (BIG TCP) says 0. */
	p->ip_len = total ? total : skb->len - L3;
	if (p->ip_len < header || p->ip_len > skb->len - L3)
		return KIND_TRUNCATED;
	p->family = 4;
	p->hop_limit = ip->ttl;
	p->traffic_class = ip->tos;
	__builtin_memcpy(&p->v4, &ip->tot_len, sizeof(p->v4));
	map_v4(p->src, ip->saddr);
	map_v4(p->dst, ip->daddr);
	if (ip->frag_off & bpf_htons(0x3fff))
		return protocol == IPPROTO_TCP ? KIND_FRAGMENT : KIND_OTHER;
	if (protocol == IPPROTO_TCP && header == sizeof(*ip)) {
		p->plain = total != 0;
		return parse_next_tcp(skb, p, ip + 1, end, L3 + sizeof(*ip));
	}
	if (protocol == IPPROTO_TCP)
		return parse_tcp(skb, p, L3 + header);
	if (protocol == IPPROTO_ICMP)
		return parse_icmp4(skb, L3 + header);
	return KIND_OTHER;
}

static __always_inline enum kind parse_v6(struct __sk_buff *skb, struct packet *p,
					  struct ipv6hdr *ip, void *end)
{
	__u32 at = L3 + sizeof(*ip), payload = bpf_ntohs(ip->payload_len);
	__u8 next = ip->nexthdr;
	struct extension extension;

	if (ip->version != 6)
		return KIND_TRUNCATED;
	p->ip_len = payload ? payload + sizeof(*ip) : skb->len - L3;
	if (p->ip_len > skb->len - L3)
		return KIND_TRUNCATED;
	p->family = 6;
	p->hop_limit = ip->hop_limit;
	p->traffic_class = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	__builtin_memcpy(p->src, &ip->saddr, 16);
	__builtin_memcpy(p->dst, &ip->daddr, 16);
	if (next == IPPROTO_TCP) {
		p->plain = payload != 0;
		return parse_next_tcp(skb, p, ip + 1, end, L3 + sizeof(*ip));
	}
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		switch (next) {
		case IPPROTO_TCP:
			return parse_tcp(skb, p, at);
		case IPPROTO_ICMPV6:
			return parse_icmp6(skb, at);
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (bpf_skb_load_bytes(skb, at, &extension, sizeof(extension)))
				return KIND_TRUNCATED;
			next = extension.next;
			at += (extension.length + 1) * 8;
			break;
		case IPPROTO_AH:
			if (bpf_skb_load_bytes(skb, at, &extension, sizeof(extension)))
				return KIND_TRUNCATED;
			next = extension.next;
			at += (extension.length + 2) * 4;
			break;
		case IPPROTO_FRAGMENT:
			if (bpf_skb_load_bytes(skb, at, &extension, sizeof(extension)))
				return KIND_TRUNCATED;
			if (extension.next == IPPROTO_TCP)
				return KIND_FRAGMENT;
			/* A later fragment of anything else; a first one goes
			 * on to its protocol, TCP behind it is a fragment. */
			if (extension.fragment & bpf_htons(0xfff8))
				return KIND_OTHER;
			next = extension.next;
			at += 8;
			break;
		default:
			return KIND_OTHER;
		}
	}
	return KIND_TRUNCATED;
}

static __always_inline enum kind parse(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet;
	__be16 type;

	if (skb->vlan_present)
		return KIND_VLAN;
	if (data + L3 + sizeof(struct ipv6hdr) > end) {
		/* Short or not linear; a failure leaves the check below to say so. */
		bpf_skb_pull_data(skb, skb->len < L3 + sizeof(struct ipv6hdr) ?
					       skb->len :
					       L3 + sizeof(struct ipv6hdr));
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	ethernet = data;
	if (data + sizeof(*ethernet) > end)
		return KIND_TRUNCATED;
	/* The frame decides, not skb->protocol: a packet socket sets that. */
	type = ethernet->h_proto;
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + L3;

		if ((void *)(ip + 1) > end)
			return KIND_TRUNCATED;
		return parse_v4(skb, p, ip, end);
	}
	if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + L3;

		if ((void *)(ip + 1) > end)
			return KIND_TRUNCATED;
		return parse_v6(skb, p, ip, end);
	}
	if (type == bpf_htons(ETH_P_ARP))
		return KIND_NEIGHBOUR;
	if (type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD))
		return KIND_VLAN;
	return KIND_NOT_IP;
}

#endif
