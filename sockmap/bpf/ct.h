/* Connection tracking: a flow is judged once, and its replies pass. */

static void reverse(struct tuple *to, const struct tuple *from)
{
	to->saddr = from->daddr;
	to->daddr = from->saddr;
	to->sport = from->dport;
	to->dport = from->sport;
	to->proto = from->proto;
	to->pad[0] = 0;
	to->pad[1] = 0;
	to->pad[2] = 0;
}

static int is_over(struct ct_entry *entry)
{
	__u8 both = TCP_FIN_SENT | TCP_FIN_REPLIED;

	if (entry->tcp & TCP_RESET)
		return 1;
	/* The proxy's own FINs are not seen here: one side's end is all there is to see. */
	if (entry->flags & CT_PROXY)
		return entry->tcp & both;
	return (entry->tcp & both) == both;
}

/* A new connection may take over what a finished, a refused, or the proxy's own one has left. */
static int is_usable(struct packet *p, struct ct_entry *entry)
{
	if (entry->flags & CT_UPSTREAM)
		return 0;
	return !(is_syn(p) && (is_over(entry) || entry->flags & CT_BLOCKED));
}

static struct ct_entry *ct_alive(struct ct_entry *entry, __u64 now)
{
	return entry && now < entry->expires ? entry : 0;
}

static struct ct_entry *ct_find_reply(struct packet *p, __u64 now)
{
	reverse(&p->key, &p->tuple);
	return ct_alive(flows.lookup(&p->key), now);
}

/* The flow of a packet that somebody quotes, whichever way it went. */
static struct ct_entry *ct_find(struct packet *p, __u64 now)
{
	struct ct_entry *entry = ct_alive(flows.lookup(&p->tuple), now);

	return entry ? entry : ct_find_reply(p, now);
}

/* The flow of a packet, if that has been judged. */
static struct ct_entry *ct_lookup(struct packet *p, __u64 now)
{
	struct ct_entry *entry = ct_alive(flows.lookup(&p->tuple), now);

	p->reply = 0;
	if (entry && is_usable(p, entry))
		return entry;
	/* A SYN is no reply: whoever sends it opens a flow of its own, and is judged for it. */
	if (is_syn(p))
		return 0;
	entry = ct_find_reply(p, now);
	p->reply = entry != 0;
	return entry;
}

static __u64 ct_lifetime(__u8 proto, struct ct_entry *entry)
{
	if (proto != PROTO_TCP)
		return OTHER_SECONDS;
	if (is_over(entry))
		return entry->flags & CT_PROXY ? SYN_SECONDS : CLOSING_SECONDS;
	return entry->tcp & TCP_REPLIED ? ESTABLISHED_SECONDS : SYN_SECONDS;
}

static __u8 ct_tcp_seen(struct packet *p, struct ct_entry *entry)
{
	__u8 seen = 0;

	/* Of a proxied flow only one leg passes here; the second packet of its client shows that it
	 * was answered. */
	if (p->reply || (entry->flags & CT_PROXY && !is_syn(p)))
		seen |= TCP_REPLIED;
	if (p->tcp_flags & FLAG_RST)
		seen |= TCP_RESET;
	if (p->tcp_flags & FLAG_FIN)
		seen |= p->reply ? TCP_FIN_REPLIED : TCP_FIN_SENT;
	return seen;
}

/* Written only when it changes something, so that the processors need not pass the entry to and
 * fro. */
static void ct_touch(struct packet *p, struct ct_entry *entry, __u64 now)
{
	__u64 expires;
	__u8 tcp;

	if (p->tuple.proto == PROTO_TCP) {
		tcp = entry->tcp | ct_tcp_seen(p, entry);
		if (tcp != entry->tcp)
			entry->tcp = tcp;
	}
	expires = now + ct_lifetime(p->tuple.proto, entry) * 1000000000ULL;
	if (expires > entry->expires + 1000000000ULL || expires < entry->expires)
		entry->expires = expires;
}

static void ct_set_parties(struct ct_entry *entry, struct party *src, struct party *dst)
{
	entry->src_identity = src->identity;
	entry->dst_identity = dst->identity;
	entry->src_endpoint = src->endpoint;
	entry->dst_endpoint = dst->endpoint;
}

/* With `fresh`, an entry that is there already stays. */
static int ct_create(struct packet *p, __u16 flags, int fresh)
{
	__u64 lifetime = p->tuple.proto == PROTO_TCP ? SYN_SECONDS : OTHER_SECONDS;
	struct ct_entry entry = {.generation = p->config.generation, .flags = flags};

	if (p->dst.on_host)
		entry.flags |= CT_HOST_SERVER;
	ct_set_parties(&entry, &p->src, &p->dst);
	entry.expires = bpf_ktime_get_ns() + lifetime * 1000000000ULL;
	return fresh ? flows.insert(&p->tuple, &entry) : flows.update(&p->tuple, &entry);
}

static void fragment_key(struct packet *p)
{
	p->fragment_key.saddr = p->tuple.saddr;
	p->fragment_key.daddr = p->tuple.daddr;
}

static int fragment_record(struct packet *p)
{
	struct fragment_value value = {
	    .sport = p->tuple.sport,
	    .dport = p->tuple.dport,
	    .proto = p->tuple.proto,
	};

	value.expires = bpf_ktime_get_ns() + FRAGMENT_SECONDS * 1000000000ULL;
	fragment_key(p);
	fragments.update(&p->fragment_key, &value);
	return PASS;
}

/* Only the first fragment has ports: it tells them to those that follow. */
static int fragment_ports(struct packet *p)
{
	struct fragment_value *value;

	if (p->fragment == WHOLE)
		return PASS;
	if (p->fragment == FIRST_FRAGMENT)
		return fragment_record(p);
	fragment_key(p);
	value = fragments.lookup(&p->fragment_key);
	if (!value || bpf_ktime_get_ns() >= value->expires)
		return DROP_FRAGMENT_NOT_FOUND;
	p->tuple.sport = value->sport;
	p->tuple.dport = value->dport;
	p->tuple.proto = value->proto;
	return PASS;
}
