/* What the programs know, and share with user space. IPv4 addresses are held as ::ffff:a.b.c.d. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/pkt_cls.h>

#define IDENTITY_HOST  1
#define IDENTITY_WORLD 2

#define MARK_OURS (MARK_MASK | 0xffff0000)

struct address {
	__be32 word[4];
};

/* A flow as its first packet goes. ICMP echo: the id is the source port of requests, the
 * destination port of replies. */
struct tuple {
	struct address saddr, daddr;
	__be16 sport, dport;
	__u8 proto;
	__u8 pad[3];
};

/* One end of a flow. The endpoint is 0 unless it is managed on this node. */
struct party {
	__u32 identity;
	__u16 endpoint;
	__u16 on_host; /* an address of the host itself */
};

struct config {
	__u32 generation;    /* of the policy in force */
	__u32 proxy_open;    /* without a worker, flows for the proxy pass */
	__u32 host_services; /* how many endpoints are cgroups of the host */
	__u32 pad;
};

struct endpoint {
	__u32 identity;
	__u16 id;
	__u16 pad;
};

struct ipcache_key {
	__u32 prefixlen;
	__u32 generation; /* numbers of identities mean something beside the policy of their time
			     only */
	struct address addr;
};

struct ipcache_value {
	__u32 identity;
	__u16 endpoint; /* only of an endpoint attached on this node */
	__u16 pad;
};

/* All but the port is matched whole, so its byte order does not matter to the trie. */
struct policy_key {
	__u32 prefixlen;
	__u32 generation;
	__u16 endpoint;
	__u8 direction;
	__u8 protocol;
	__u32 identity;
	__be16 port;
	__u16 pad;
};

enum direction { INGRESS, EGRESS };
enum verdict { ALLOW = 1, DENY = 2, PROXY = 3 };
#define VERDICT_AUDIT 0x100

enum ct_flags {
	CT_PROXY = 1,	 /* its packets belong to the proxy */
	CT_UPSTREAM = 2, /* opened by the proxy */
	CT_AUDIT = 4,	 /* passes only because the policy is in audit mode */
	CT_BLOCKED =
	    8, /* no longer allowed; kept so that the proxy's sockets do not take it back */
	CT_HOST_SERVER = 16 /* the server's address is the host's */
};

enum ct_tcp { TCP_REPLIED = 1, TCP_FIN_SENT = 2, TCP_FIN_REPLIED = 4, TCP_RESET = 8 };

struct ct_entry {
	__u64 expires; /* CLOCK_MONOTONIC, ns */
	__u32 generation;
	__u32 src_identity, dst_identity;
	__u16 src_endpoint, dst_endpoint;
	__u16 flags;
	__u8 tcp; /* apart from the flags, so that no packet's update undoes a verdict */
	__u8 pad[5];
};

struct fragment_key {
	struct address saddr, daddr;
	__be32 id;
	__u8 proto;
	__u8 pad[3];
};

struct fragment_value {
	__u64 expires;
	__be16 sport, dport;
	__u8 proto; /* of the upper layer, behind all extension headers */
	__u8 pad[3];
};

struct event {
	__u64 time;
	struct tuple tuple;
	__u32 src_identity, dst_identity;
	__u32 ifindex, length;
	__u16 src_endpoint, dst_endpoint;
	__u16 endpoint; /* whose policy, and its direction, as the flow goes */
	__u8 reason, audit, direction, reply, tcp_flags, icmp_type, icmp_code;
	__u8 pad[3];
};

struct bucket {
	__u64 filled;
	__u64 tokens;
};

/* What becomes of a packet; above PASS, the reason to drop it. Programs act on it in one place,
 * finish(). */
enum outcome { HAIRPIN = -5, STEERED, NOT_STEERED, TO_PROXY, UNMANAGED, PASS };

enum fragment { WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT };

/* A packet while a program works on it: too large for the stack beside the rest, so it lives in a
 * map. */
struct packet {
	struct config config; /* as it was when the program began: one policy for the whole run */
	struct tuple tuple, key; /* key: of the look-up that is under way */
	struct party src, dst;
	struct fragment_key fragment_key;
	__u32 l4; /* offset from the network header */
	__u16 event_endpoint;
	__u8 event_direction;
	__u8 ipv6, hop_limit, fragment;
	__u8 tcp_flags, icmp_type, icmp_code;
	__u8 reply;   /* the connection track was found by its reverse */
	__u8 audited; /* a new flow passes by audit mode alone */
	__u8 pad[5];
};

BPF_TABLE("percpu_array", __u32, struct packet, scratch, 1);
BPF_TABLE("array", __u32, struct config, config, 1);
BPF_TABLE("percpu_array", __u32, __u64, counts, COUNT_END);
BPF_TABLE("percpu_array", __u32, struct bucket, buckets, 1);
BPF_TABLE("hash", __u32, struct endpoint, endpoints, 65536);
BPF_TABLE("hash", __u32, __u32, host_endpoints, 65536); /* identity -> endpoint id */
BPF_TABLE("hash", __u64, __u32, cgroups, 4096);		/* cgroup id -> identity */
BPF_F_TABLE("lpm_trie", struct ipcache_key, struct ipcache_value, ipcache, IPCACHE_ENTRIES,
	    BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct policy_key, __u32, policy, POLICY_ENTRIES, BPF_F_NO_PREALLOC);
BPF_TABLE("lru_hash", struct tuple, struct ct_entry, flows, CT_ENTRIES);
BPF_TABLE("lru_hash", struct fragment_key, struct fragment_value, fragments, FRAG_ENTRIES);
BPF_TABLE("sockmap", __u32, __u32, listeners, 2 * WORKERS);
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);

static struct config *settings(void)
{
	int zero = 0;

	return config.lookup(&zero);
}

static void count(__u32 what)
{
	__u64 *value = counts.lookup(&what);

	if (value)
		*value += 1;
}
