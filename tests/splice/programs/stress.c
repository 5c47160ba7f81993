/* Many checked streams between a client and a server: random sizes, pauses, peeks, and all ways to
   end.

   stress [--listen | --connect] [--addr A] [--port P] [--bind-addr A] [--bind-port P]
   [--client-netns NAME]
	  [--connections N] [--seconds S] [--seed N] [--bytes N] [--threads N] [--patience S]
   [--kinds a,b,...]

   With neither --listen nor --connect it is both, in two processes. The port after P is for
   connections that are never accepted. What was seen goes to stdout as JSON; the exit status is 1
   if a stream was not right. */
#include "content.h"
#include "stream.h"
#include "tools.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define TICK_MS	      2
#define STARTS	      100 /* new streams in one turn of a worker */
#define WAITING	      500 /* streams of a worker in the accept queue: 4,096 overflow it */
#define ORPHANS_MS    300 /* life of a listener that accepts nothing */
#define SOURCES	      8	  /* client addresses on loopback: TIME_WAIT takes the ports of one soon */
#define MOST_THREADS  16
#define DEFAULT_KINDS ((1u << KINDS) - 1)

static struct options options = {.seed = 1,
				 .bytes = 1 << 20,
				 .kinds = DEFAULT_KINDS,
				 .connections = 100,
				 .seconds = 2,
				 .threads = 2,
				 .patience = 20};
static struct place place = {.addr = "127.0.0.1"};
static int listener = -1, orphans = -1;
static atomic_int bye;
static atomic_ullong next_id;
static atomic_llong accept_after;
static int64_t begun;

static int is_over(int64_t now)
{
	return now - begun > options.seconds * 1000ll;
}

static void start_stream(struct worker *w)
{
	struct sockaddr_storage to;
	struct sockaddr_in *v4 = (void *)&to, from;
	struct plan plan;
	socklen_t size;
	int fd, one = 1;

	make_plan(&options, next_id++, &plan);
	size = address(&to, place.addr, place.port + (plan.kind == ORPHAN));
	fd = client_socket(&place, to.ss_family);
	if (fd < 0)
		die("socket");
	set_nonblocking(fd, 1);
	if (to.ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127) {
		from = *v4;
		from.sin_port = 0;
		from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + plan.id % SOURCES);
		setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(fd, (void *)&from, sizeof(from)))
			die("bind");
	}
	if (connect(fd, (void *)&to, size) && errno != EINPROGRESS) {
		if (plan.kind == ORPHAN && errno == ECONNREFUSED)
			w->counts.refused++;
		else if (errno == EADDRNOTAVAIL)
			w->counts.no_port++;
		else
			die("connect");
		close(fd);
		return;
	}
	add_end(w, fd, &plan);
}

/* No stream of the first ones sends before all of them are there. */
static void start_streams(struct worker *w, int64_t now, int *started)
{
	int i, slots = options.connections / options.threads;

	for (i = 0; i < STARTS && w->live < slots && w->waiting < WAITING; i++, ++*started) {
		if (is_over(now) && *started >= slots)
			break;
		start_stream(w);
	}
	if (w->all_started || *started < slots)
		return;
	w->all_started = 1;
	for (i = w->live - 1; i >= 0; i--)
		step(w->ends[i]);
}

/* Now and then nobody accepts for a while. */
static void accept_some(struct worker *w, int64_t now, uint64_t *rng)
{
	int i, fd;

	for (i = 0; i < STARTS && now >= accept_after; i++) {
		fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EMFILE)
			die("accept");
		if (fd < 0)
			return;
		if (random64(rng) % 500 == 0)
			accept_after = now + random64(rng) % 200;
		add_end(w, fd, 0);
	}
}

static void renew_orphans(int64_t now, int64_t *since)
{
	if (orphans >= 0 && now - *since < ORPHANS_MS)
		return;
	if (orphans >= 0)
		close(orphans);
	orphans = listen_at(place.bind_addr ? place.bind_addr : place.addr, place.bind_port + 1, 0);
	*since = now;
}

static void turn(struct worker *w, int64_t *scanned)
{
	struct epoll_event events[256];
	int64_t now;
	int i, count = epoll_wait(w->epoll, events, 256, TICK_MS);

	for (i = 0; i < count; i++)
		happened(events[i].data.ptr, events[i].events);
	now = now_ms();
	if (now - *scanned < TICK_MS)
		return;
	*scanned = now;
	for (i = w->live - 1; i >= 0; i--) {
		if (w->ends[i]->wake && now >= w->ends[i]->wake)
			step(w->ends[i]);
		else
			check_hung(w->ends[i], now);
	}
}

static void *serve(void *argument)
{
	struct worker *w = argument;
	uint64_t rng = mix(options.seed + (uintptr_t)w) | 1;
	int64_t scanned = 0, since = 0;

	while (!bye || w->live) {
		turn(w, &scanned);
		accept_some(w, now_ms(), &rng);
		if (w->bye)
			bye = 1;
		if (w->first)
			renew_orphans(now_ms(), &since);
	}
	return 0;
}

static void *call(void *argument)
{
	struct worker *w = argument;
	int64_t scanned = 0;
	int started = 0;

	do {
		start_streams(w, now_ms(), &started);
		turn(w, &scanned);
	} while (w->live || !is_over(now_ms()));
	return 0;
}

static void add_counts(struct counts *sum, const struct counts *counts)
{
	const uint64_t *from = (const void *)counts;
	uint64_t *to = (void *)sum;
	size_t i;

	for (i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
}

static void report(const struct counts *c)
{
	uint64_t streams = 0;
	int kind;

	printf("{\"kinds\": {");
	for (kind = 0; kind < KINDS; kind++) {
		streams += c->streams[kind];
		printf("%s\"%s\": %lu", kind ? ", " : "", kind_names[kind], c->streams[kind]);
	}
	printf("}, \"streams\": %lu, \"sent\": %lu, \"received\": %lu, \"resets\": %lu, "
	       "\"refused\": %lu, \"peeks\": %lu, \"inquiries\": %lu, \"nameless\": %lu, "
	       "\"no_port\": %lu, \"most\": %lu, ",
	       streams, c->sent, c->received, c->resets, c->refused, c->peeks, c->inquiries,
	       c->nameless, c->no_port, c->most);
	report_failures();
	printf("}");
	fflush(stdout);
}

static int run(void *(*work)(void *))
{
	static struct worker workers[MOST_THREADS];
	pthread_t threads[MOST_THREADS];
	struct counts sum = {0};
	int i;

	begun = now_ms();
	for (i = 0; i < options.threads; i++) {
		workers[i].options = &options;
		workers[i].first = !i;
		workers[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		workers[i].buffer = malloc(256 * 1024);
		if (!workers[i].buffer || workers[i].epoll < 0)
			die("no memory");
		if (pthread_create(&threads[i], 0, work, &workers[i]))
			die("no thread");
	}
	for (i = 0; i < options.threads; i++) {
		pthread_join(threads[i], 0);
		add_counts(&sum, &workers[i].counts);
	}
	report(&sum);
	return has_failed();
}

static void say_bye(void)
{
	uint64_t words[2] = {mix(options.seed), BYE};
	int fd = connect_to(&place);
	char end;

	if (write(fd, words, HELLO) != HELLO)
		die("bye");
	if (read(fd, &end, 1) > 0)
		die("bye was answered");
	close(fd);
}

static int run_client(void)
{
	int failed = run(call);

	say_bye();
	return failed;
}

static void listen_twice(void)
{
	const char *addr = place.bind_addr ? place.bind_addr : place.addr;
	int tries, first = place.bind_port;

	for (tries = 0; tries < 50; tries++) {
		listener = listen_at(addr, first, SOCK_NONBLOCK);
		if (listener < 0)
			continue;
		place.bind_port = port_of(listener);
		orphans = listen_at(addr, place.bind_port + 1, 0);
		if (orphans >= 0)
			break;
		close(listener);
	}
	if (orphans < 0)
		die("no two ports to listen at");
	if (!place.port)
		place.port = place.bind_port;
}

/* Both, each a process; the server's report comes through a pipe. */
static int run_both(void)
{
	int pipes[2], status = 0, failed;
	char text[16384];
	size_t size;
	FILE *from;
	pid_t child;

	listen_twice();
	if (pipe(pipes) || (child = fork()) < 0)
		die("fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(pipes[1], STDOUT_FILENO);
		exit(run(serve));
	}
	close(pipes[1]);
	close(listener);
	close(orphans);
	printf("{\"client\": ");
	failed = run_client();
	from = fdopen(pipes[0], "r");
	size = fread(text, 1, sizeof(text), from);
	printf(", \"server\": %.*s}\n", (int)size, text);
	waitpid(child, &status, 0);
	return failed || status;
}

static void choose_kinds(char *names)
{
	char *name, *rest = 0;
	int kind;

	options.kinds = 0;
	for (name = strtok_r(names, ",", &rest); name; name = strtok_r(0, ",", &rest)) {
		for (kind = 0; kind < KINDS && strcmp(name, kind_names[kind]); kind++)
			;
		if (kind == KINDS)
			die("%s is no kind of stream", name);
		options.kinds |= 1u << kind;
	}
}

int main(int count __attribute__((unused)), char **words)
{
	int failed, listens = 0, connects = 0;
	char *kinds = 0;
	const struct knob knobs[] = {PLACE_KNOBS(place),
				     {"--listen", 'f', &listens},
				     {"--connect", 'f', &connects},
				     {"--connections", 'i', &options.connections},
				     {"--seconds", 'i', &options.seconds},
				     {"--seed", 'u', &options.seed},
				     {"--bytes", 'u', &options.bytes},
				     {"--threads", 'i', &options.threads},
				     {"--patience", 'i', &options.patience},
				     {"--kinds", 's', &kinds},
				     {0, 0, 0}};

	parse_knobs(knobs, words);
	if (kinds)
		choose_kinds(kinds);
	if (options.threads < 1 || options.threads > MOST_THREADS || !options.kinds ||
	    options.connections < options.threads)
		die("--threads, --kinds or --connections");
	allow_files(options.connections + options.connections / 2 + 100);
	signal(SIGPIPE, SIG_IGN);
	if (listens) {
		listen_twice();
		fprintf(stderr, "port %d\n", place.bind_port);
		printf("{\"server\": ");
		failed = run(serve);
		printf("}\n");
	} else if (connects) {
		printf("{\"client\": ");
		failed = run_client();
		printf("}\n");
	} else {
		failed = run_both();
	}
	return failed;
}
