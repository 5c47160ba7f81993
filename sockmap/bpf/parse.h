/*
 * From a packet to its tuple. Headers are copied to the stack by bpf_skb_load_bytes_relative, which
 * checks bounds, and finds data in page fragments; offsets count from the network header, so link
 * headers and VLAN tags do not matter.
 */
#define EXTENSIONS 6

#define FLAG_FIN 0x01
#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define FLAG_ACK 0x10

#define NEXT_HOPOPTS  0
#define NEXT_ROUTING  43
#define NEXT_FRAGMENT 44
#define NEXT_AUTH     51
#define NEXT_NONE     59
#define NEXT_DESTOPTS 60
#define NEXT_MOBILITY 135
#define NEXT_HIP      139
#define NEXT_SHIM6    140

#define PROTO_ICMP   1
#define PROTO_TCP    6
#define PROTO_UDP    17
#define PROTO_ICMPV6 58
#define PROTO_SCTP   132

struct ipv4_header {
	__u8 version_ihl, tos;
	__be16 total, id, fragment;
	__u8 ttl, proto;
	__be16 check;
	__be32 saddr, daddr;
};

struct ipv6_header {
	__be32 version;
	__be16 payload;
	__u8 next, hop_limit;
	struct address saddr, daddr;
};

struct extension {
	__u8 next, length, type, segments_left;
	__be32 fragment_id;
};

/* The beginning that TCP, UDP, SCTP and ICMP headers share in one way or another. */
struct l4_header {
	__be16 sport, dport; /* ICMP: type and code; checksum */
	__be16 id, low;	     /* ICMP: id */
};

static int load(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, length, BPF_HDR_START_NET);
}

/* The compiler must not keep the address of a field of the context: the verifier takes only direct
 * access. */
#define DIRECT(skb) asm volatile("" : "+r"(skb))
#define BARRIER	    asm volatile("" : : : "memory")

static __u32 get_mark(struct __sk_buff *skb)
{
	DIRECT(skb);
	return skb->mark;
}

static int same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static void map_ipv4(struct address *to, __be32 from)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = bpf_htonl(0xffff);
	to->word[3] = from;
}

static int is_mapped(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

static int is_group(struct packet *p, const struct address *a)
{
	if (p->ipv6)
		return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	return (a->word[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000);
}

static int parse_ipv4(struct __sk_buff *skb, struct packet *p, struct tuple *t, __u32 offset)
{
	struct ipv4_header ip;
	__u32 length;

	if (load(skb, offset, &ip, sizeof(ip)))
		return DROP_INVALID_IPV4;
	length = (ip.version_ihl & 15) * 4;
	if (ip.version_ihl >> 4 != 4 || length < sizeof(ip) || bpf_ntohs(ip.total) < length)
		return DROP_INVALID_IPV4;
	map_ipv4(&t->saddr, ip.saddr);
	map_ipv4(&t->daddr, ip.daddr);
	t->proto = ip.proto;
	p->hop_limit = ip.ttl;
	p->l4 = offset + length;
	p->fragment_key.id = ip.id;
	p->fragment_key.proto = ip.proto;
	if (ip.fragment & bpf_htons(0x1fff))
		p->fragment = LATER_FRAGMENT;
	else if (ip.fragment & bpf_htons(0x2000))
		p->fragment = FIRST_FRAGMENT;
	/* A second fragment so near the first could overwrite the flags of its TCP header (RFC
	 * 3128). */
	if (ip.proto == PROTO_TCP && (ip.fragment & bpf_htons(0x1fff)) == bpf_htons(1))
		return DROP_FRAGMENT_INVALID;
	return PASS;
}

static int is_extension(__u8 next)
{
	return next == NEXT_HOPOPTS || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTH || next == NEXT_DESTOPTS;
}

static int is_unsupported(__u8 next)
{
	return next == NEXT_NONE || next == NEXT_MOBILITY || next == NEXT_HIP ||
	       next == NEXT_SHIM6 || next >= 253;
}

static void parse_ipv6_fragment(struct packet *p, struct extension *e)
{
	__be16 offset;

	__builtin_memcpy(&offset, &e->type, sizeof(offset));
	p->fragment_key.id = e->fragment_id;
	p->fragment_key.proto = e->next;
	if (offset & bpf_htons(0xfff8))
		p->fragment = LATER_FRAGMENT;
	else if (offset & bpf_htons(1))
		p->fragment = FIRST_FRAGMENT;
}

/* Returns the length of the extension header, or 0 if a packet must not have it. */
static __u32 extension_length(__u8 next, struct extension *e)
{
	if (next == NEXT_FRAGMENT)
		return 8;
	if (next == NEXT_AUTH)
		return (e->length + 2) * 4;
	/* With segments left, the packet would go on to an address that nobody judged. */
	if (next == NEXT_ROUTING && e->segments_left)
		return 0;
	return (e->length + 1) * 8;
}

static int walk_extensions(struct __sk_buff *skb, struct packet *p, struct tuple *t, __u32 offset)
{
	__u8 next = t->proto;
	struct extension e;
	__u32 length;
	int i;

	for (i = 0; i < EXTENSIONS && is_extension(next) && p->fragment != LATER_FRAGMENT; i++) {
		if (load(skb, offset, &e, sizeof(e)))
			return DROP_INVALID_IPV6;
		length = extension_length(next, &e);
		if (!length)
			return DROP_EXTENSION_HEADER;
		if (next == NEXT_FRAGMENT)
			parse_ipv6_fragment(p, &e);
		next = e.next;
		offset += length;
	}
	if (p->fragment != LATER_FRAGMENT && (is_extension(next) || is_unsupported(next)))
		return DROP_EXTENSION_HEADER;
	t->proto = next;
	p->l4 = offset;
	return PASS;
}

static int parse_ipv6(struct __sk_buff *skb, struct packet *p, struct tuple *t, __u32 offset)
{
	struct ipv6_header ip;

	if (load(skb, offset, &ip, sizeof(ip)) || (bpf_ntohl(ip.version) >> 28) != 6)
		return DROP_INVALID_IPV6;
	t->saddr = ip.saddr;
	t->daddr = ip.daddr;
	t->proto = ip.next;
	p->hop_limit = ip.hop_limit;
	/* On the wire they are nobody's (RFC 4291 2.5.5.2), and here they would be IPv4's. */
	if (is_mapped(&ip.saddr) || is_mapped(&ip.daddr))
		return DROP_MAPPED_ADDRESS;
	return walk_extensions(skb, p, t, offset + sizeof(ip));
}

static int is_icmp(__u8 proto, __u8 ipv6)
{
	return proto == (ipv6 ? PROTO_ICMPV6 : PROTO_ICMP);
}

/* Ports of an ICMP message, such that a reply's tuple is its request's reversed. */
static void icmp_ports(struct packet *p, struct tuple *t, struct l4_header *l4)
{
	__u8 type = bpf_ntohs(l4->sport) >> 8, code = bpf_ntohs(l4->sport) & 0xff;

	p->icmp_type = type;
	p->icmp_code = code;
	t->sport = 0;
	t->dport = 0;
	if (type == (p->ipv6 ? 128 : 8))
		t->sport = l4->id;
	else if (type == (p->ipv6 ? 129 : 0))
		t->dport = l4->id;
	else
		t->dport = l4->sport;
}

static int has_ports(__u8 proto)
{
	return proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP;
}

static int parse_ports(struct __sk_buff *skb, struct packet *p, struct tuple *t)
{
	struct l4_header l4;

	t->sport = 0;
	t->dport = 0;
	if (p->fragment == LATER_FRAGMENT)
		return PASS;
	if (!has_ports(t->proto) && !is_icmp(t->proto, p->ipv6))
		return PASS;
	if (load(skb, p->l4, &l4, sizeof(l4)))
		return DROP_INVALID_L4;
	if (!has_ports(t->proto)) {
		icmp_ports(p, t, &l4);
		return PASS;
	}
	t->sport = l4.sport;
	t->dport = l4.dport;
	return PASS;
}

static int parse_tcp_flags(struct __sk_buff *skb, struct packet *p)
{
	__u8 header[20];

	if (p->tuple.proto != PROTO_TCP || p->fragment == LATER_FRAGMENT)
		return PASS;
	if (load(skb, p->l4, header, sizeof(header)) || header[12] >> 4 < 5)
		return DROP_INVALID_L4;
	p->tcp_flags = header[13];
	return PASS;
}

static int parse_at(struct __sk_buff *skb, struct packet *p, struct tuple *t, __u32 offset)
{
	int reason;

	reason = p->ipv6 ? parse_ipv6(skb, p, t, offset) : parse_ipv4(skb, p, t, offset);
	if (!reason && is_group(p, &t->saddr))
		reason = DROP_INVALID_SOURCE;
	return reason ? reason : parse_ports(skb, p, t);
}

/* Fills a fresh p. Returns PASS, UNMANAGED for what is not IP, or the reason to drop. */
static int parse(struct __sk_buff *skb, struct packet *p)
{
	int reason;

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return UNMANAGED;
	p->ipv6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	reason = parse_at(skb, p, &p->tuple, 0);
	return reason ? reason : parse_tcp_flags(skb, p);
}

static int is_syn(struct packet *p)
{
	return p->tuple.proto == PROTO_TCP && (p->tcp_flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
}

/* Router and neighbour discovery (RFC 4861: the hop limit proves that no router passed it) and
 * multicast listeners. */
static int is_discovery(struct packet *p)
{
	if (!p->ipv6 || p->tuple.proto != PROTO_ICMPV6 || p->fragment != WHOLE)
		return 0;
	if (p->icmp_type >= 133 && p->icmp_type <= 137)
		return p->hop_limit == 255;
	return (p->icmp_type >= 130 && p->icmp_type <= 132) || p->icmp_type == 143;
}

static int is_icmp_error(struct packet *p)
{
	if (!is_icmp(p->tuple.proto, p->ipv6) || p->fragment != WHOLE)
		return 0;
	if (p->ipv6)
		return p->icmp_type >= 1 && p->icmp_type <= 4;
	return p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12;
}
