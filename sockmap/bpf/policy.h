/* Who the ends of a flow are, and what the policy says of it. */

static void identify_address(struct packet *p, struct party *party, const struct address *addr)
{
	struct ipcache_key key = {.prefixlen = 160, .addr = *addr};
	struct ipcache_value *found;

	key.generation = p->config.generation;
	found = ipcache.lookup(&key);
	party->identity = found ? found->identity : IDENTITY_WORLD;
	party->endpoint = found ? found->endpoint : 0;
	party->on_host = party->identity == IDENTITY_HOST;
}

static void identify_ends(struct packet *p)
{
	identify_address(p, &p->src, &p->tuple.saddr);
	identify_address(p, &p->dst, &p->tuple.daddr);
}

/* The cgroup endpoint whose identity a socket's mark carries, if it carries one. */
static int identify_mark(struct party *party, __u32 mark)
{
	__u32 identity = mark >> 16;
	__u32 *endpoint;

	if ((mark & MARK_MASK) != MARK_IDENTITY)
		return 0;
	endpoint = host_endpoints.lookup(&identity);
	if (!endpoint)
		return 0;
	party->identity = identity;
	party->endpoint = *endpoint;
	return 1;
}

/* What the host itself sends: a cgroup endpoint by the socket's mark, else the host. */
static void host_party(struct party *party, __u32 mark)
{
	party->on_host = 1;
	if (identify_mark(party, mark))
		return;
	party->identity = IDENTITY_HOST;
	party->endpoint = 0;
}

static __u8 policy_protocol(__u8 proto)
{
	return has_ports(proto) ? proto : 0;
}

static __u32 *policy_lookup(struct policy_key *key, __u32 identity)
{
	key->identity = identity;
	return policy.lookup(key);
}

/* No rows: the endpoint is not selected in this direction. */
static __u32 policy_of(struct packet *p, __u16 endpoint, __u8 direction, __u32 peer, __be16 port)
{
	struct policy_key key = {.prefixlen = 112, .endpoint = endpoint, .direction = direction};
	__u32 *verdict;

	if (!endpoint)
		return ALLOW;
	key.generation = p->config.generation;
	key.protocol = policy_protocol(p->tuple.proto);
	key.port = key.protocol ? port : 0;
	verdict = policy_lookup(&key, peer);
	if (!verdict)
		verdict = policy_lookup(&key, 0);
	return verdict ? *verdict : ALLOW;
}

static void blame(struct packet *p, __u16 endpoint, __u8 direction)
{
	p->event_endpoint = endpoint;
	p->event_direction = direction;
}

/* Both sides' word on a flow from src to dst: a denial of either, else the proxy of either, else it
 * is allowed. */
static __u32 judge(struct packet *p, struct party *src, struct party *dst, __be16 port)
{
	__u32 egress, ingress, audit;

	egress = policy_of(p, src->endpoint, EGRESS, dst->identity, port);
	ingress = policy_of(p, dst->endpoint, INGRESS, src->identity, port);
	if ((egress & 0xff) == DENY || egress & VERDICT_AUDIT || !dst->endpoint)
		blame(p, src->endpoint, EGRESS);
	else
		blame(p, dst->endpoint, INGRESS);
	if ((egress & 0xff) == DENY || (ingress & 0xff) == DENY)
		return DENY;
	audit = (egress | ingress) & VERDICT_AUDIT;
	return audit | ((egress & 0xff) == PROXY || (ingress & 0xff) == PROXY ? PROXY : ALLOW);
}
