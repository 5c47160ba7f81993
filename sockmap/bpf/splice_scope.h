/* Which connections are looked at, by addresses, ports, namespaces, names and ways of
 * reading. */
/* The context's fields have to be read at fixed places: keeps the compiler from joining two
 * branches' reads. */
#define APART(name) asm volatile("/* " name " */" ::: "memory")

static inline void write_addresses(struct bpf_sock_ops *ops, struct address *local,
				   struct address *remote)
{
	if (ops->family == AF_INET) {
		local->word[2] = remote->word[2] = bpf_htonl(0xffff);
		local->word[3] = ops->local_ip4;
		remote->word[3] = ops->remote_ip4;
		APART("IPv4");
		return;
	}
	local->word[0] = ops->local_ip6[0];
	local->word[1] = ops->local_ip6[1];
	local->word[2] = ops->local_ip6[2];
	local->word[3] = ops->local_ip6[3];
	remote->word[0] = ops->remote_ip6[0];
	remote->word[1] = ops->remote_ip6[1];
	remote->word[2] = ops->remote_ip6[2];
	remote->word[3] = ops->remote_ip6[3];
	APART("IPv6");
}

/* Of the packets: a socket of IPv6 may have IPv4 connections. */
static inline __u16 family(struct address *a)
{
	return a->word[0] || a->word[1] || a->word[2] != bpf_htonl(0xffff) ? AF_INET6 : AF_INET;
}

static inline int loopback(struct address *a)
{
	if (a->word[0] || a->word[1])
		return 0;
	if (family(a) == AF_INET)
		return (a->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !a->word[2] && a->word[3] == bpf_htonl(1);
}

/* 0, or what the map says: CHOSEN, LEFT_ALONE. */
static inline __u32 named(struct scope *s, struct half *end)
{
	struct tag name = {};
	__u32 *chosen;
	if (!s->names)
		return 0;
	__builtin_memcpy(name.name, end->tag.name, sizeof(name.name));
	chosen = scope_names.lookup(&name);
	return chosen ? *chosen : 0;
}

/* By what it asks for, and where. */
static inline int asks_in_scope(struct scope *s, struct half *client)
{
	__u16 port = client->remote_port;
	if (s->ports && !scope_ports.lookup(&port))
		return 0;
	if (s->netns && !scope_netns.lookup(&client->netns))
		return 0;
	return s->anywhere || loopback(&client->remote);
}

static inline int in_scope(struct scope *s, struct half *client)
{
	client->chosen = named(s, client);
	return client->chosen != LEFT_ALONE && asks_in_scope(s, client);
}

/* One chosen end is enough, and so is one that is to be left alone. */
static inline int server_in_scope(struct scope *s, struct half *client, struct half *server)
{
	if (client->around)
		return client->tag.cgroup == s->around || server->tag.cgroup == s->around;
	server->chosen = named(s, server);
	if (server->chosen == LEFT_ALONE)
		return 0;
	return s->names != CHOSEN || server->chosen || client->chosen;
}

/* What this program opens is left to the stack whatever it talks to: known at once, and not
 * followed any further. A dry run lists all. */
static inline int left_alone(struct scope *s, struct tag *tag)
{
	struct style *style;
	if (s->dry || (s->around && tag->cgroup == s->around))
		return 0;
	style = styles.lookup(tag);
	return style && style->otherwise;
}

/* 0: its program reads in a way that splicing does not change. */
static inline __u32 unsound(struct scope *s, struct tag *tag)
{
	struct style *style;
	if (s->around && tag->cgroup == s->around)
		return 0;
	style = styles.lookup(tag);
	if (style && style->otherwise)
		return SPLICE_READS_OTHERWISE;
	/* The listener is older than the hook: programs that nobody knows are not one program. */
	if (!s->untaught && (!tag->name[0] || !tag->command))
		return SPLICE_UNKNOWN;
	return s->untaught || (style && style->sound) ? 0 : SPLICE_LEARNING;
}
