/* What becomes of a packet of a managed endpoint. */

/* The service of the host that a packet goes to: its socket's mark tells the identity. */
static void host_service(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = p->ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4);
	struct bpf_sock *sk = 0, *full;
	__u32 mark = 0;

	if (p->tuple.proto == PROTO_TCP) {
		sk = find_tcp(skb, p);
	} else if (p->tuple.proto == PROTO_UDP) {
		socket_tuple(&tuple, p);
		sk = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return;
	full = bpf_sk_fullsock(sk);
	if (full)
		mark = full->mark;
	bpf_sk_release(sk);
	identify_mark(&p->dst, mark);
}

static void resolve_destination(struct __sk_buff *skb, struct packet *p)
{
	if (p->dst.on_host && p->config.host_services)
		host_service(skb, p);
}

/* In the middle of a connection nobody knows which end opened it. What goes to the proxy one way
   must not pass beside it as the answers of the other. */
static int answers_need_proxy(struct packet *p)
{
	if (p->tuple.proto != PROTO_TCP || is_syn(p))
		return 0;
	return (judge(p, &p->dst, &p->src, p->tuple.sport) & 0xff) == PROXY;
}

static int new_flow(struct __sk_buff *skb, struct packet *p)
{
	__u32 verdict;
	__u16 flags = 0;

	if (is_for_proxy(skb, p))
		return TO_PROXY;
	resolve_destination(skb, p);
	if (!p->src.endpoint && !p->dst.endpoint)
		return UNMANAGED;
	verdict = judge(p, &p->src, &p->dst, p->tuple.dport);
	p->audited = (verdict & VERDICT_AUDIT) != 0;
	verdict &= 0xff;
	if (verdict == DENY || (verdict == PROXY && p->tuple.proto != PROTO_TCP))
		return DROP_POLICY_DENIED;
	if (verdict == PROXY || answers_need_proxy(p))
		flags |= CT_PROXY;
	if (p->audited)
		flags |= CT_AUDIT;
	if (ct_create(p, flags, 0))
		return DROP_TRACK_FAILED;
	return flags & CT_PROXY ? TO_PROXY : PASS;
}

/* A service of the host is known by its socket; a reply or a late packet may show none, so what was
 * known stays. */
static void keep_host_party(struct party *now, __u32 identity, __u16 endpoint)
{
	if (now->on_host && !now->endpoint && endpoint) {
		now->identity = identity;
		now->endpoint = endpoint;
	}
}

/* Under a new policy. Returns the reason to drop, or 0. */
static int judge_again(struct __sk_buff *skb, struct packet *p, struct ct_entry *entry)
{
	struct party *src = p->reply ? &p->dst : &p->src, *dst = p->reply ? &p->src : &p->dst;
	__u32 verdict;

	resolve_destination(skb, p);
	keep_host_party(src, entry->src_identity, entry->src_endpoint);
	keep_host_party(dst, entry->dst_identity, entry->dst_endpoint);
	verdict = judge(p, src, dst, p->reply ? p->tuple.sport : p->tuple.dport) & 0xff;
	if (verdict == PROXY && !(entry->flags & CT_PROXY)) {
		flows.delete(p->reply ? &p->key : &p->tuple);
		return DROP_PROXY_REQUIRED;
	}
	ct_set_parties(entry, src, dst);
	if (verdict == DENY)
		entry->flags |= CT_BLOCKED;
	else
		entry->flags &= ~CT_BLOCKED;
	entry->generation = p->config.generation;
	return 0;
}

static int is_outdated(struct packet *p, struct ct_entry *entry)
{
	if (entry->flags & CT_UPSTREAM)
		return 0;
	/* A blocked flow is judged each time, so that its drops name the side that denies it. */
	return entry->generation != p->config.generation || entry->flags & CT_BLOCKED;
}

static int known_flow(struct __sk_buff *skb, struct packet *p, struct ct_entry *entry, __u64 now)
{
	int reason = is_outdated(p, entry) ? judge_again(skb, p, entry) : PASS;

	if (reason)
		return reason;
	if (entry->flags & CT_BLOCKED)
		return DROP_POLICY_CHANGED;
	ct_touch(p, entry, now);
	return entry->flags & CT_PROXY ? TO_PROXY : PASS;
}

/* The flow of the packet that an ICMP error quotes. Only that packet's sender may hear of it. */
static struct ct_entry *quoted_flow(struct __sk_buff *skb, struct packet *p, __u64 now)
{
	struct address to = p->tuple.daddr;
	struct ct_entry *entry;

	if (parse_at(skb, p, &p->tuple, p->l4 + 8) || p->fragment == LATER_FRAGMENT)
		return 0;
	entry = ct_find(p, now);
	return entry && same(&to, &p->tuple.saddr) && !(entry->flags & CT_BLOCKED) ? entry : 0;
}

/*
 * Errors about a flow pass. Returns NOT_STEERED if this one is about none. Those about the proxy's
 * own packets go to its sockets, for path MTU discovery.
 */
static int related(struct __sk_buff *skb, struct packet *p, __u64 now, enum hook hook)
{
	struct tuple outer = p->tuple;
	__u8 type = p->icmp_type, code = p->icmp_code;
	struct ct_entry *entry = quoted_flow(skb, p, now);

	p->tuple = outer;
	p->icmp_type = type;
	p->icmp_code = code;
	p->fragment = WHOLE;
	if (!entry)
		return NOT_STEERED;
	return entry->flags & CT_PROXY && hook == ON_INGRESS ? STEERED : PASS;
}

static int handle(struct __sk_buff *skb, struct packet *p, enum hook hook)
{
	__u64 now = bpf_ktime_get_ns();
	struct ct_entry *entry;
	int outcome;

	if (is_discovery(p))
		return PASS;
	outcome = fragment_ports(p);
	if (outcome)
		return outcome;
	if (is_icmp_error(p)) {
		outcome = related(skb, p, now, hook);
		if (outcome != NOT_STEERED)
			return outcome;
	}
	entry = ct_lookup(p, now);
	return entry ? known_flow(skb, p, entry, now) : new_flow(skb, p);
}

/* Do what has been decided; returns the TC action. */
static int finish(struct __sk_buff *skb, struct packet *p, enum hook hook, int outcome)
{
	if (outcome == TO_PROXY)
		outcome = hook == ON_EGRESS ? hairpin(p) : assign(skb, p);
	if (outcome == UNMANAGED)
		return TC_ACT_OK;
	if (outcome > PASS || p->audited)
		report(skb, p, outcome);
	if (outcome > PASS)
		return TC_ACT_SHOT;
	if (outcome == PASS) {
		count(COUNT_FORWARDED);
		return TC_ACT_OK;
	}
	set_mark(skb, MARK_STEER, p->src.identity);
	if (outcome == HAIRPIN)
		return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
	count(COUNT_STEERED);
	return TC_ACT_OK;
}
