/* What is counted of pairs, and why an end, or a send, is left to the stack: one table for the
 * programs and for user space, which reads this file. */
#define SPLICE_COUNTS(X)                                                                           \
	X(PAIRED, "paired")                                                                        \
	X(ENDED, "ended")                                                                          \
	X(SPLICED_BYTES, "spliced_bytes")                                                          \
	X(STRAIGHT_BYTES, "straight_bytes")                                                        \
	X(STACK_BYTES, "stack_bytes")                                                              \
	X(LEFT_BYTES, "left_bytes")                                                                \
	X(FLIPS, "flips")                                                                          \
	X(BUDGET_HITS, "budget_hits")                                                              \
	X(TAKEN_OUT, "taken_out")

/* Of connections on this node that are not paired, or not spliced. */
#define SPLICE_REFUSALS(X)                                                                         \
	X(FAST_OPEN, "data in the handshake")                                                      \
	X(OUT_OF_SCOPE, "out of scope")                                                            \
	X(LEARNING, "its program's way of reading is not known yet")                               \
	X(UNKNOWN, "its program is not known")                                                     \
	X(UNWATCHED, "the process that watches how programs read is gone")                         \
	X(READS_OTHERWISE, "its program reads by other means than recv")                           \
	X(ENROL_FAILED, "the kernel did not take its socket")                                      \
	X(PAIRS_FULL, "the table of pairs is full")

/* Of sends. */
#define SPLICE_STACK(X)                                                                            \
	X(NO_PEER, "the peer is gone, or has just come")                                           \
	X(STOPPED, "splicing is off")                                                              \
	X(ULP, "an upper layer protocol (kTLS)")                                                   \
	X(LEAVING, "an end streams by the stack")                                                  \
	X(LOW_WATER, "the peer waits for several bytes at once")                                   \
	X(POLICY, "the policy has changed, and the stack is judged first")                         \
	X(BUDGET, "the peer does not read fast enough")                                            \
	X(MEMORY, "the kernel's memory for TCP is scarce")                                         \
	X(ORDER, "the peer has not read what the stack still carries")

#define SPLICE_ID(name, text) SPLICE_##name,

enum splice_count {
	SPLICE_NONE,
	SPLICE_COUNTS(SPLICE_ID) SPLICE_REFUSALS(SPLICE_ID) SPLICE_STACK(SPLICE_ID) SPLICE_END
};
