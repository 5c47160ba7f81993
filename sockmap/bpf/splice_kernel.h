/* What is read of the kernel, and counted. */

static inline void add(__u32 what, __u64 amount)
{
	__u64 *count = splice_counts.lookup(&what);
	if (count)
		*count += amount;
}

static inline __u32 word(__u64 base, __u32 offset)
{
	__u32 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
	return value;
}

static inline __u64 pointer(__u64 base, __u32 offset)
{
	__u64 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
	return value;
}

static inline struct scope *the_scope(void)
{
	__u32 zero = 0;
	return scope.lookup(&zero);
}
