/* Why packets are dropped, and what is counted: one table for the programs and for user space,
 * which reads this file. */
#define REASONS(X)                                                                                 \
	X(POLICY_DENIED, "Policy denied")                                                          \
	X(POLICY_CHANGED, "Policy denied (changed)")                                               \
	X(PROXY_REQUIRED, "Policy changed (flow needs the proxy)")                                 \
	X(PROXY_UNAVAILABLE, "Proxy unavailable")                                                  \
	X(ASSIGN_FAILED, "Socket assign failed")                                                   \
	X(INVALID_SOURCE, "Invalid source ip")                                                     \
	X(SPOOFED_SOURCE, "Spoofed source ip (a local endpoint's)")                                \
	X(INVALID_IPV4, "Invalid IPv4 header")                                                     \
	X(INVALID_IPV6, "Invalid IPv6 header")                                                     \
	X(MAPPED_ADDRESS, "IPv4-mapped IPv6 address")                                              \
	X(INVALID_L4, "Invalid or truncated L4 header")                                            \
	X(EXTENSION_HEADER, "Unsupported IPv6 extension header")                                   \
	X(FRAGMENT_NOT_FOUND, "Fragment not found")                                                \
	X(FRAGMENT_INVALID, "Invalid fragment")                                                    \
	X(TRACK_FAILED, "Connection tracking failed")

#define COUNTERS(X)                                                                                \
	X(FORWARDED, "forwarded")                                                                  \
	X(STEERED, "steered")                                                                      \
	X(AUDITED, "audited")                                                                      \
	X(EVENTS_LOST, "events_lost")

#define REASON_ID(name, text)  DROP_##name,
#define COUNTER_ID(name, text) COUNT_##name,

enum count { DROP_NONE, REASONS(REASON_ID) COUNTERS(COUNTER_ID) COUNT_END };
