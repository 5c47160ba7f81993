/* Records of drops and audited flows for user space, at a bounded rate. */

static int may_report(__u64 now)
{
	int zero = 0;
	struct bucket *bucket = buckets.lookup(&zero);
	__u64 earned;

	if (!bucket)
		return 0;
	earned = (now - bucket->filled) / (1000000000ULL / EVENT_RATE);
	if (earned) {
		bucket->filled = now;
		bucket->tokens += earned;
		if (bucket->tokens > EVENT_RATE)
			bucket->tokens = EVENT_RATE;
	}
	if (!bucket->tokens)
		return 0;
	bucket->tokens--;
	return 1;
}

/* A drop, with its reason, or a flow that passes by audit mode alone. */
static void report(struct __sk_buff *skb, struct packet *p, int outcome)
{
	__u64 now = bpf_ktime_get_ns();
	struct event *event;

	count(outcome > PASS ? outcome : COUNT_AUDITED);
	event = may_report(now) ? events.ringbuf_reserve(sizeof(struct event)) : 0;
	if (!event) {
		count(COUNT_EVENTS_LOST);
		return;
	}
	event->time = now;
	event->tuple = p->tuple;
	event->src_identity = p->src.identity;
	event->dst_identity = p->dst.identity;
	event->ifindex = skb->ifindex;
	event->length = skb->len;
	event->src_endpoint = p->src.endpoint;
	event->dst_endpoint = p->dst.endpoint;
	event->endpoint = p->event_endpoint;
	event->reason = outcome > PASS ? outcome : DROP_POLICY_DENIED;
	event->audit = outcome <= PASS;
	event->direction = p->event_direction;
	event->reply = p->reply;
	event->tcp_flags = p->tcp_flags;
	event->icmp_type = p->icmp_type;
	event->icmp_code = p->icmp_code;
	__builtin_memset(event->pad, 0, sizeof(event->pad));
	events.ringbuf_submit(event, 0);
}
