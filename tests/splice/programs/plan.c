/* The plan of each stream, and the record of what went wrong. */
#include "stream.h"
#include "content.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#define MOST_FAILURES 20

const char *const kind_names[KINDS] = {"full", "half", "cross", "reset", "unread", "orphan"};

static pthread_mutex_t failures_lock = PTHREAD_MUTEX_INITIALIZER;
static char failures[MOST_FAILURES][320];
static int failure_count;

void fail(struct end *e, uint64_t offset, const char *format, ...)
{
	char what[160];
	va_list words;

	va_start(words, format);
	vsnprintf(what, sizeof(what), format, words);
	va_end(words);
	pthread_mutex_lock(&failures_lock);
	if (failure_count < MOST_FAILURES)
		snprintf(
		    failures[failure_count], sizeof(failures[0]),
		    "{\"stream\": %lld, \"kind\": \"%s\", \"end\": \"%s\", \"events\": \"%s\", "
		    "\"offset\": %llu, \"what\": \"%s\"}",
		    e->named ? (long long)e->plan.id : -1, e->named ? kind_names[e->plan.kind] : "",
		    e->side ? "server" : "client", e->plan.edge[e->side] ? "edge" : "level",
		    (unsigned long long)offset, what);
	failure_count++;
	pthread_mutex_unlock(&failures_lock);
	e->over = 1;
}

void report_failures(void)
{
	int i;

	printf("\"error_count\": %d, \"errors\": [", failure_count);
	for (i = 0; i < failure_count && i < MOST_FAILURES; i++)
		printf("%s%s", i ? ", " : "", failures[i]);
	printf("]");
}

int has_failed(void)
{
	return failure_count > 0;
}

uint64_t some_size(uint64_t *rng, uint64_t most)
{
	uint64_t limit = most >> (random64(rng) % (64 - __builtin_clzll(most | 1)));

	return 1 + random64(rng) % (limit ? limit : 1);
}

void make_plan(const struct options *options, uint64_t id, struct plan *plan)
{
	uint64_t rng = mix(mix(options->seed) ^ id) | 1;
	int side;

	plan->id = id;
	do
		plan->kind = random64(&rng) % KINDS;
	while (!(options->kinds & 1u << plan->kind));
	plan->actor = random64(&rng) & 1;
	for (side = 0; side < 2; side++) {
		plan->largest[side] = some_size(&rng, 256 * 1024);
		plan->bytes[side] = random64(&rng) % 16 ? some_size(&rng, options->bytes) : 0;
		/* Not more than some thousand writes. */
		if (plan->bytes[side] > plan->largest[side] * 1000ull)
			plan->bytes[side] = plan->largest[side] * 1000ull;
		plan->stall[side] = random64(&rng) & 1 ? 20 + random64(&rng) % 200 : 0;
		plan->edge[side] = random64(&rng) & 1;
	}
}
