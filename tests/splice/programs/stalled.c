/* Writers of many connections whose readers do not read: how much goes into each, and what memory
   that takes.

   stalled [--addr A] [--port P] [--bind-addr A] [--bind-port P] [--client-netns NAME]
   [--connections N] [--both]
	   [--warm-up ROUNDS] [--limit BYTES] [--total BYTES] [--quiet MS]

   Clients write until they would block and nothing changes for some time; --both: servers too. Then
   the readers read all of it. A writer that gets rid of --limit bytes, or all of them of --total,
   stops and counts as unbounded. JSON on stdout; the exit status is 1 if content was not right.
   Memory is in KiB, that of TCP counts what sockets charge. */
#include "content.h"
#include "tools.h"

#include <poll.h>

static struct place place = {.addr = "127.0.0.1"};
static int connections = 1000, both, warm_up, quiet_ms = 200;
static uint64_t limit = 64 << 20, total_limit = 4ull << 30, total;
static uint64_t errors;

struct half {
	int from, to, capped;
	uint64_t number, sent;
};

static long long number_in(const char *file, const char *line, const char *word)
{
	char text[256], *at;
	long long value = -1;
	FILE *f = fopen(file, "r");

	while (f && fgets(text, sizeof(text), f))
		if (!strncmp(text, line, strlen(line)) && (at = strstr(text, word)))
			value = atoll(at + strlen(word));
	if (f)
		fclose(f);
	return value;
}

static void report_memory(const char *when)
{
	printf("\"%s\": {\"tcp\": %lld, \"available\": %lld}, ", when,
	       number_in("/proc/net/sockstat", "TCP:", "mem ") * (getpagesize() / 1024),
	       number_in("/proc/meminfo", "MemAvailable:", "MemAvailable:"));
	fflush(stdout);
}

static void wrong(const struct half *h, uint64_t offset, const char *what)
{
	if (!errors++)
		fprintf(stderr, "stream %llu, offset %llu: %s (%s)\n",
			(unsigned long long)h->number, (unsigned long long)offset, what,
			strerror(errno));
}

static void talk(const struct half *h)
{
	char text[16] = "warm";
	int i;

	for (i = 0; i < 2 * warm_up; i++)
		if (send(i & 1 ? h->to : h->from, text, 16, 0) != 16 ||
		    recv(i & 1 ? h->from : h->to, text, 16, 0) != 16)
			die("warm-up");
}

static int write_some(struct half *h)
{
	static char text[64 * 1024];
	ssize_t put;

	if (h->capped)
		return 0;
	content_fill(content_seed(1, h->number, 0), h->sent, text, sizeof(text));
	put = send(h->from, text, sizeof(text), MSG_DONTWAIT | MSG_NOSIGNAL);
	if (put < 0 && errno != EAGAIN)
		wrong(h, h->sent, "send");
	if (put <= 0)
		return 0;
	h->sent += put;
	total += put;
	h->capped = h->sent >= limit || total >= total_limit;
	return 1;
}

static void write_all(struct half *halves, int count)
{
	int64_t last = now_ms();
	int i;

	while (now_ms() - last < quiet_ms) {
		for (i = 0; i < count; i++)
			if (write_some(&halves[i]))
				last = now_ms();
		sleep_ms(1);
	}
}

static void read_all(struct half *h)
{
	static char text[256 * 1024];
	uint64_t at = 0;
	ssize_t got, bad;

	shutdown(h->from, SHUT_WR);
	while ((got = recv(h->to, text, sizeof(text), 0)) > 0) {
		bad = content_wrong(content_seed(1, h->number, 0), at, text, got);
		if (bad >= 0) {
			wrong(h, at + bad, "wrong content");
			return;
		}
		at += got;
	}
	if (got || at != h->sent)
		wrong(h, at, "not all that was sent came");
}

static struct half *open_all(int count)
{
	struct half *halves = calloc(count, sizeof(*halves));
	struct timeval time = {10, 0};
	int listener = listen_for(&place), i, client, server;

	if (!halves)
		die("no memory");
	for (i = 0; i < count; i++) {
		halves[i].number = i;
		if (i < connections) {
			client = connect_to(&place);
			server = accept(listener, 0, 0);
			if (server < 0)
				die("accept");
			halves[i].from = client;
			halves[i].to = server;
			talk(&halves[i]);
		} else {
			halves[i].from = halves[i - connections].to;
			halves[i].to = halves[i - connections].from;
		}
		if (setsockopt(halves[i].to, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)))
			die("SO_RCVTIMEO");
	}
	return halves;
}

static void report(const struct half *halves, int count)
{
	uint64_t least = UINT64_MAX, most = 0;
	int i, capped = 0;

	for (i = 0; i < count; i++) {
		least = halves[i].sent < least ? halves[i].sent : least;
		most = halves[i].sent > most ? halves[i].sent : most;
		capped += halves[i].capped;
	}
	printf("\"connections\": %d, \"streams\": %d, \"least\": %llu, \"most\": %llu, \"total\": "
	       "%llu, "
	       "\"unbounded\": %d, \"errors\": %llu}\n",
	       connections, count, (unsigned long long)least, (unsigned long long)most,
	       (unsigned long long)total, capped, (unsigned long long)errors);
}

int main(int count __attribute__((unused)), char **words)
{
	const struct knob knobs[] = {
	    PLACE_KNOBS(place),		 {"--connections", 'i', &connections},
	    {"--both", 'f', &both},	 {"--warm-up", 'i', &warm_up},
	    {"--limit", 'u', &limit},	 {"--total", 'u', &total_limit},
	    {"--quiet", 'i', &quiet_ms}, {0, 0, 0}};
	struct half *halves;
	int i, streams;

	parse_knobs(knobs, words);
	streams = both ? 2 * connections : connections;
	allow_files(2 * connections + 100);
	halves = open_all(streams);
	printf("{");
	report_memory("before");
	write_all(halves, streams);
	report_memory("stalled");
	for (i = 0; i < streams; i++)
		read_all(&halves[i]);
	report_memory("after");
	report(halves, streams);
	return errors > 0;
}
