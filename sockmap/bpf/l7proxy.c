/* The hooks. Each says who the source is, leaves unmanaged traffic as early as it can, and hands on
 * the rest. */
#include "reasons.h"
#include "maps.h"
#include "events.h"
#include "parse.h"
#include "ct.h"
#include "policy.h"
#include "steer.h"
#include "flow.h"

#define FAMILY_INET6 10

static struct packet *packet(void)
{
	int zero = 0;
	struct packet *p = scratch.lookup(&zero);
	struct config *c = settings();

	if (!p || !c)
		return 0;
	__builtin_memset(p, 0, sizeof(*p));
	p->config = *c;
	return p;
}

/*
 * Parse what may be the proxy's own. Its packets go where they will; its SYNs are remembered, so
 * that the answers come back to it.
 */
static int parse_outgoing(struct __sk_buff *skb, struct packet *p)
{
	int reason = parse(skb, p);

	if ((get_mark(skb) & MARK_MASK) != MARK_PROXY)
		return reason;
	if (reason || !is_syn(p) || p->fragment != WHOLE)
		return UNMANAGED;
	identify_ends(p);
	ct_create(p, CT_PROXY | CT_UPSTREAM, 1);
	return UNMANAGED;
}

static int judge_from_endpoint(struct __sk_buff *skb, struct packet *p, struct endpoint *endpoint)
{
	int reason = parse(skb, p);

	if (reason == UNMANAGED)
		return reason;
	identify_ends(p);
	blame(p, endpoint->id, EGRESS);
	if (!reason && p->src.endpoint != endpoint->id && !is_discovery(p))
		reason = DROP_INVALID_SOURCE;
	p->src.identity = endpoint->identity;
	p->src.endpoint = endpoint->id;
	return reason ? reason : handle(skb, p, ON_INGRESS);
}

/* TC ingress of an endpoint's host-side interface: what the endpoint sends. */
int from_endpoint(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct endpoint *endpoint = endpoints.lookup(&ifindex);
	struct packet *p = packet();

	if (!p || !endpoint)
		return TC_ACT_SHOT;
	return finish(skb, p, ON_INGRESS, judge_from_endpoint(skb, p, endpoint));
}

static int judge_from_netdev(struct __sk_buff *skb, struct packet *p)
{
	int reason = parse(skb, p);

	if (reason == UNMANAGED)
		return reason;
	identify_ends(p);
	blame(p, p->dst.endpoint, INGRESS);
	if (p->src.endpoint)
		return DROP_SPOOFED_SOURCE;
	if (!p->dst.endpoint && !(p->dst.on_host && p->config.host_services))
		return UNMANAGED;
	return reason ? reason : handle(skb, p, ON_INGRESS);
}

/* TC ingress of a node interface: what comes from outside. */
int from_netdev(struct __sk_buff *skb)
{
	struct packet *p = packet();

	return p ? finish(skb, p, ON_INGRESS, judge_from_netdev(skb, p)) : TC_ACT_SHOT;
}

/* A local endpoint's packets pass its own interface first; those of that source from elsewhere are
 * not its own. */
static int is_spoofed(struct __sk_buff *skb, struct packet *p)
{
	__u32 ifindex = skb->ingress_ifindex;
	struct endpoint *endpoint;

	if (!ifindex || !p->src.endpoint)
		return 0;
	endpoint = endpoints.lookup(&ifindex);
	return !endpoint || endpoint->id != p->src.endpoint;
}

static int judge_to_endpoint(struct __sk_buff *skb, struct packet *p)
{
	int reason = parse_outgoing(skb, p);

	if (reason == UNMANAGED)
		return reason;
	identify_ends(p);
	if (!skb->ingress_ifindex)
		host_party(&p->src, get_mark(skb));
	blame(p, p->dst.endpoint, INGRESS);
	if (!reason && is_spoofed(skb, p))
		reason = DROP_SPOOFED_SOURCE;
	return reason ? reason : handle(skb, p, ON_EGRESS);
}

/* TC egress of an endpoint's host-side interface: what the host sends to it or forwards. */
int to_endpoint(struct __sk_buff *skb)
{
	struct packet *p = packet();

	return p ? finish(skb, p, ON_EGRESS, judge_to_endpoint(skb, p)) : TC_ACT_SHOT;
}

static int judge_to_netdev(struct __sk_buff *skb, struct packet *p)
{
	int reason = parse_outgoing(skb, p);

	if (reason == UNMANAGED)
		return reason;
	host_party(&p->src, get_mark(skb));
	identify_address(p, &p->dst, &p->tuple.daddr);
	blame(p, p->src.endpoint, EGRESS);
	if (reason)
		return p->src.endpoint ? reason : UNMANAGED;
	return handle(skb, p, ON_EGRESS);
}

/* TC egress of a node interface: what services of the host send. What is forwarded was judged where
 * it came in. */
int to_netdev(struct __sk_buff *skb)
{
	struct config *c = settings();
	struct packet *p;

	if ((get_mark(skb) & MARK_MASK) != MARK_PROXY &&
	    (!(c && c->host_services) || skb->ingress_ifindex))
		return TC_ACT_OK;
	p = packet();
	return p ? finish(skb, p, ON_EGRESS, judge_to_netdev(skb, p)) : TC_ACT_SHOT;
}

/* What an egress hook has sent here for the proxy. Its mark comes from there, or from an
 * administrator's socket. */
static int hairpinned(struct __sk_buff *skb, struct packet *p, __u32 mark, int reason)
{
	p->src.identity = mark >> 16;
	if (reason)
		return reason;
	if (bpf_skb_change_type(skb, 0 /* PACKET_HOST */))
		return DROP_ASSIGN_FAILED;
	return p->tuple.proto == PROTO_TCP ? TO_PROXY : UNMANAGED;
}

static int judge_from_loopback(struct __sk_buff *skb, struct packet *p)
{
	__u32 mark = get_mark(skb);
	int reason = parse_outgoing(skb, p);

	if ((mark & MARK_MASK) == MARK_STEER)
		return hairpinned(skb, p, mark, reason);
	if (reason)
		return UNMANAGED;
	host_party(&p->src, mark);
	p->dst.identity = IDENTITY_HOST;
	p->dst.on_host = 1;
	return handle(skb, p, ON_LOOPBACK);
}

/* TC ingress of lo: packets turned round by egress hooks, and those between services of the host.
 */
int from_loopback(struct __sk_buff *skb)
{
	__u32 magic = get_mark(skb) & MARK_MASK;
	struct config *c = settings();
	struct packet *p;

	if (magic != MARK_STEER && magic != MARK_PROXY && !(c && c->host_services))
		return TC_ACT_OK;
	p = packet();
	return p ? finish(skb, p, ON_LOOPBACK, judge_from_loopback(skb, p)) : TC_ACT_SHOT;
}

/* A new socket of a process in an endpoint's cgroup: its mark tells who it is. */
int mark_socket(struct bpf_sock *sk)
{
	__u32 *identity = 0;
	__u64 id;
	int level;

	for (level = CGROUP_LEVELS - 1; level > 0 && !identity; level--) {
		id = bpf_get_current_ancestor_cgroup_id(level);
		identity = cgroups.lookup(&id);
	}
	if (identity)
		sk->mark = (sk->mark & ~MARK_OURS) | MARK_IDENTITY | *identity << 16;
	return 1;
}

static void lookup_tuple(struct tuple *t, struct bpf_sk_lookup *c, int ipv6)
{
	t->sport = c->remote_port;
	t->dport = bpf_htons(c->local_port);
	t->proto = PROTO_TCP;
	if (ipv6) {
		t->saddr.word[0] = c->remote_ip6[0];
		t->saddr.word[1] = c->remote_ip6[1];
		t->saddr.word[2] = c->remote_ip6[2];
		t->saddr.word[3] = c->remote_ip6[3];
		t->daddr.word[0] = c->local_ip6[0];
		t->daddr.word[1] = c->local_ip6[1];
		t->daddr.word[2] = c->local_ip6[2];
		t->daddr.word[3] = c->local_ip6[3];
		BARRIER; /* or both branches would end in one load, at an address of their own */
		return;
	}
	map_ipv4(&t->saddr, c->remote_ip4);
	map_ipv4(&t->daddr, c->local_ip4);
	BARRIER;
}

/*
 * The namespace's look-up of listeners. For a SYN to a socket in TIME_WAIT the kernel comes here,
 * whatever TC has assigned: two sockets of one tuple cannot be, and only it can end the first.
 */
int find_listener(struct bpf_sk_lookup *context)
{
	int ipv6 = context->family == FAMILY_INET6;
	struct tuple tuple = {};
	struct ct_entry *entry;
	long failed;

	if (context->protocol != PROTO_TCP)
		return SK_PASS;
	lookup_tuple(&tuple, context, ipv6);
	entry = ct_alive(flows.lookup(&tuple), bpf_ktime_get_ns());
	if (entry && (entry->flags & (CT_PROXY | CT_UPSTREAM | CT_BLOCKED)) == CT_PROXY)
		assign_listener(context, &tuple, ipv6, &failed);
	return SK_PASS;
}
