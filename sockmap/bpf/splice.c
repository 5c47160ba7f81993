/* Splices pairs of TCP sockets of one node: what one end sends is put straight into the queue of
 * the other. docs/splice.md says why it is safe. */
#include "splice_maps.h"
#include "splice_reasons.h"
#include "splice_kernel.h"
#include "splice_scope.h"
#include "splice_talks.h"
#include "splice_reads.h"
#include "splice_peers.h"
#include "splice_leave.h"
#include "splice_ways.h"
#include "splice_lanes.h"
#include "splice_bridge.h"

#define SHUT_BOTH    3
#define USER_TIMEOUT 18 /* TCP_USER_TIMEOUT */

/* What a reader that closes has not read does not count for the kernel, which has thrown it away by
 * then: it sends FIN, not RST, and its window stays shut. Its writer would wait for a minute, and
 * one that has closed as well would keep for minutes what nobody can read. */
static inline void closes(struct bpf_sock_ops *ops, struct own *own)
{
	struct pair *pair;
	int soon = 1000;
	pair = pairs.lookup(&own->id);
	if (!pair || !pair->spliceable) /* others' programs may have asked for its states */
		return;
	if ((word(own->self, OFFSET_SHUTDOWN) & SHUT_BOTH) == SHUT_BOTH)
		pair->deaf[own->side & 1] = 1;
	if (ops->args[1] != BPF_TCP_FIN_WAIT1 && pair->deaf[!(own->side & 1)])
		bpf_setsockopt(ops, IPPROTO_TCP, USER_TIMEOUT, &soon, sizeof(soon));
}

static inline void closed(struct bpf_sock_ops *ops, struct own *own)
{
	__u64 cookie;
	if (own->enrolled) {
		cookie = bpf_get_socket_cookie(ops);
		enrolled.delete(&cookie);
	}
	/* Its process has it still, and may be in the middle of a read, whose bytes have gone and
	 * are not counted yet: how it reads is judged when the socket is destroyed. */
	if (pointer(own->self, OFFSET_SOCKET))
		leave(own);
	else
		over(own);
}

static inline void state_changes(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct own *own = sk ? owns.sk_storage_get(sk, 0, 0) : 0;
	if (!own || !own->id)
		return;
	if (ops->args[1] == BPF_TCP_CLOSE)
		closed(ops, own);
	else
		closes(ops, own);
}

/* `place`: where the program is attached; WITHIN, to a cgroup whose connections are chosen. */
static inline int established(struct bpf_sock_ops *ops, __u32 place)
{
	struct scope *s = the_scope();
	if (!s)
		return 1;
	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		client_established(ops, s, place);
	else
		server_established(ops, s);
	return 1;
}

/* Those of `watched`. */
int on_established(struct bpf_sock_ops *ops)
{
	return established(ops, WITHIN);
}

int on_neighbour_established(struct bpf_sock_ops *ops)
{
	return established(ops, SOMEBODY);
}

static inline int look_at(struct bpf_sock_ops *ops, __u32 place)
{
	struct scope *s = the_scope();
	if (!s || (!s->on && ops->op != BPF_SOCK_OPS_STATE_CB))
		return 1;
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		begins(ops, s);
		break;
	case BPF_SOCK_OPS_RWND_INIT:
		if (!ops->is_fullsock)
			expect(ops, place);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		watched.call(ops, place);
		established(ops, place);
		watch(ops);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		leaves_map(ops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changes(ops);
		break;
	}
	return 1;
}

int on_socket(struct bpf_sock_ops *ops)
{
	return look_at(ops, WITHIN);
}

/* Attached above the others: sees both ends of pairs with one end in the cgroup `around`. */
int on_neighbour(struct bpf_sock_ops *ops)
{
	return look_at(ops, SOMEBODY);
}

/* Attached to the cgroup `around`. */
int on_request(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_RWND_INIT && !ops->is_fullsock)
		expect(ops, AROUND);
	return 1;
}

static inline void send(struct sk_msg_md *msg, struct scope *s, struct own *own, struct pair *pair,
			struct way *way)
{
	struct waiting waiting = {};
	struct place peer = {};
	long taken;
	__u32 why;
	own->peer = pair->end[!(own->side & 1)].sock;
	if (pair->relayed && crossed(s, own, pair, msg))
		return;
	why = unspliceable(s, own, pair, msg->size, &waiting);
	if (!why)
		why = unjudged(s, own, way);
	if (!why) {
		peer.id = own->id;
		peer.side = !own->side;
		taken = spliced.msg_redirect_hash(msg, &peer, BPF_F_INGRESS);
		if (taken != SK_PASS)
			why = SPLICE_NO_PEER;
	}
	if (why) {
		to_stack(pair, way, msg->size, why);
		return;
	}
	to_peer(way, msg->size);
	judge_worth(pair, way, msg->size, waiting.bytes);
}

int on_send(struct sk_msg_md *msg)
{
	struct scope *s = the_scope();
	struct pair *pair;
	struct own *own;
	struct way *way;
	struct bpf_sock *sk = msg->sk;
	if (!s || !sk)
		return SK_PASS;
	own = owns.sk_storage_get(sk, 0, 0);
	if (!own)
		return SK_PASS;
	pair = pairs.lookup(&own->id);
	if (!pair || !pair->spliceable)
		return SK_PASS;
	way = &pair->way[own->side & 1];
	__sync_fetch_and_add(&way->begun, 1); /* seen before what is read from here on */
	APART("what follows is done between the two");
	send(msg, s, own, pair, way);
	APART("and nothing behind");
	way->decided++;
	return SK_PASS;
}

#define MOST_TRIM  0xfff /* bytes, of one bpf_skb_adjust_room */
#define MOST_TRIMS 130	 /* half a MiB: the largest that IPv6 aggregates */

/* Moves what comes by the stack into the queue that redirection fills: one queue, one order, one
 * FIONREAD. A retransmission may begin with bytes that have come before; the kernel's own recv
 * leaves them out by their numbers, the queue would have them twice. */
int on_arrival(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct member *member = enrolled.lookup(&cookie);
	__u32 seq, size = skb->len;
	int again, part, i;
	if (!member || !size)
		return SK_PASS;
	seq = word((__u64)skb, OFFSET_CONTROL); /* struct tcp_skb_cb */
	again = member->arrived - seq;
	if (again < (int)size)
		member->arrived = seq + size;
	else
		again = size; /* only the end is new */
	for (i = 0; i < MOST_TRIMS && again > 0; i++) {
		part = again < MOST_TRIM ? again : MOST_TRIM;
		if (bpf_skb_adjust_room(skb, -part, 0, 0))
			break;
		again -= part;
	}
	return SK_PASS;
}
