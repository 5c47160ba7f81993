/* To the proxy: its established socket first, then a worker's listener. */

#define STATE_TIME_WAIT	   6
#define STATE_LISTEN	   10
#define STATE_NEW_SYN_RECV 12

/* Where a packet is seen decides how it reaches a local socket: there is no socket assignment on
 * egress. */
enum hook { ON_INGRESS, ON_LOOPBACK, ON_EGRESS };

static void set_mark(struct __sk_buff *skb, __u32 value, __u32 identity)
{
	__u32 mark = (get_mark(skb) & ~MARK_OURS) | value | identity << 16;

	DIRECT(skb);
	skb->mark = mark;
}

static void socket_tuple(struct bpf_sock_tuple *to, struct packet *p)
{
	if (p->ipv6) {
		__builtin_memcpy(to->ipv6.saddr, &p->tuple.saddr, sizeof(struct address));
		__builtin_memcpy(to->ipv6.daddr, &p->tuple.daddr, sizeof(struct address));
		to->ipv6.sport = p->tuple.sport;
		to->ipv6.dport = p->tuple.dport;
		return;
	}
	to->ipv4.saddr = p->tuple.saddr.word[3];
	to->ipv4.daddr = p->tuple.daddr.word[3];
	to->ipv4.sport = p->tuple.sport;
	to->ipv4.dport = p->tuple.dport;
}

static struct bpf_sock *find_tcp(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = p->ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4);

	socket_tuple(&tuple, p);
	return bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
}

static int has_proxy_mark(struct bpf_sock *sk)
{
	struct bpf_sock *full;

	/* A request socket shows no mark; its listener does. */
	full = sk->state == STATE_NEW_SYN_RECV ? bpf_get_listener_sock(sk) : bpf_sk_fullsock(sk);
	return full && (full->mark & MARK_MASK) == MARK_PROXY;
}

/*
 * A socket in TIME_WAIT shows no mark; if the flow is known to be the proxy's, so is the socket.
 * The kernel itself turns a SYN that may reuse it to a listener, which then find_listener names.
 */
static int is_proxys(struct bpf_sock *sk, int known)
{
	if (sk->state == STATE_LISTEN)
		return 0;
	if (sk->state == STATE_TIME_WAIT)
		return known;
	return has_proxy_mark(sk);
}

static __u32 flow_hash(struct tuple *t)
{
	__u32 h = t->saddr.word[3] ^ t->daddr.word[3] ^ t->saddr.word[1];

	h ^= (__u32)t->sport << 16 | t->dport;
	h = (h ^ h >> 16) * 0x7feb352d;
	h = (h ^ h >> 15) * 0x846ca68b;
	return h ^ h >> 16;
}

/* To the flow's worker, or while it has no listener to the next one that has. */
static int assign_listener(void *context, struct tuple *t, __u32 ipv6, long *failed)
{
	__u32 hash = flow_hash(t), slot, i;
	struct bpf_sock *sk;

	for (i = 0; i < WORKERS; i++) {
		slot = 2 * ((hash + i) % WORKERS) + ipv6;
		sk = (struct bpf_sock *)listeners.lookup(&slot);
		if (!sk)
			continue;
		*failed = bpf_sk_assign(context, sk, 0);
		bpf_sk_release(sk);
		return 1;
	}
	return 0;
}

static int no_worker(struct packet *p)
{
	return p->config.proxy_open ? PASS : DROP_PROXY_UNAVAILABLE;
}

/* Returns NOT_STEERED if the proxy has no socket for the packet. */
static int assign_established(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock *sk = find_tcp(skb, p);
	int outcome = NOT_STEERED;

	if (!sk)
		return NOT_STEERED;
	if (is_proxys(sk, 1))
		outcome = bpf_sk_assign(skb, sk, 0) ? DROP_ASSIGN_FAILED : STEERED;
	bpf_sk_release(sk);
	return outcome;
}

static int assign(struct __sk_buff *skb, struct packet *p)
{
	long failed = 0;
	int outcome;

	/* The kernel puts fragments together first, and finds the socket by the whole. */
	if (p->fragment != WHOLE)
		return STEERED;
	outcome = assign_established(skb, p);
	if (outcome != NOT_STEERED)
		return outcome;
	if (!assign_listener(skb, &p->tuple, p->ipv6, &failed))
		return no_worker(p);
	return failed ? DROP_ASSIGN_FAILED : STEERED;
}

static int has_listener(struct packet *p)
{
	struct bpf_sock *sk;
	__u32 slot, i;

	for (i = 0; i < WORKERS; i++) {
		slot = 2 * i + p->ipv6;
		sk = (struct bpf_sock *)listeners.lookup(&slot);
		if (!sk)
			continue;
		bpf_sk_release(sk);
		return 1;
	}
	return 0;
}

/* From egress back to an ingress hook, lo's, where a socket can be assigned. */
static int hairpin(struct packet *p)
{
	/* Behind lo there is no way on to the server, so the way without a proxy must be taken
	 * here. */
	return p->config.proxy_open && !has_listener(p) ? PASS : HAIRPIN;
}

/* Is this packet for a connection the proxy has, though its connection track is gone? */
static int is_for_proxy(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock *sk;
	int found;

	if (p->tuple.proto != PROTO_TCP || is_syn(p) || p->fragment != WHOLE)
		return 0;
	sk = find_tcp(skb, p);
	if (!sk)
		return 0;
	found = is_proxys(sk, 0);
	bpf_sk_release(sk);
	return found;
}
