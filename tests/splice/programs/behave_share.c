/* Names, and sockets that several descriptors, processes and threads share. */
#include "behave.h"

#include <signal.h>
#include <sys/wait.h>

static void names(const struct pair *p)
{
	struct sockaddr_storage mine[2], its[2];
	socklen_t size;
	int turn;

	for (turn = 0; turn < 2; turn++) {
		size = sizeof(mine[turn]);
		NEED(!getsockname(p->from, (void *)&mine[turn], &size), "getsockname");
		size = sizeof(its[turn]);
		NEED(!getpeername(p->from, (void *)&its[turn], &size), "getpeername");
		put(p->from, turn * 100, 100);
		get(p->to, turn * 100, 100);
	}
	NEED(!memcmp(&mine[0], &mine[1], size), "getsockname has changed");
	NEED(!memcmp(&its[0], &its[1], size), "getpeername has changed");
}

static void duplicate(const struct pair *p)
{
	int again = dup(p->to), writer = dup(p->from);

	put(p->from, 0, 100);
	arrive(again, 100);
	get(p->to, 0, 40);
	get(again, 40, 30);
	close(p->to);
	get(again, 70, 30);
	close(p->from);
	put(writer, 100, 100);
	get(again, 100, 100);
	NEED_IS(events_of(again, POLLIN, QUIET_MS), 0, "events while a descriptor is open");
	close(writer);
	get_end(again);
}

static void wait_for(pid_t child)
{
	int status = -1;

	NEED(waitpid(child, &status, 0) == child, "waitpid");
	if (status)
		_exit(1); /* it has said why */
}

static void forked_readers(const struct pair *p)
{
	pid_t child;

	put(p->from, 0, 2000);
	arrive(p->to, 2000);
	child = fork();
	if (!child) {
		get(p->to, 0, 900);
		_exit(0);
	}
	wait_for(child);
	get(p->to, 900, 1100);
	put(p->from, 2000, 500);
	get(p->to, 2000, 500);
	put(p->to, 0, 500);
	get(p->from, 0, 500);
}

/* The child carries on with the only descriptors. */
static void handed_to_child(const struct pair *p)
{
	pid_t child;

	put(p->from, 0, 100);
	child = fork();
	if (!child) {
		close(p->from);
		get(p->to, 0, 1100);
		get_end(p->to);
		put(p->to, 0, 1000);
		_exit(0);
	}
	close(p->to);
	put(p->from, 100, 1000);
	shutdown(p->from, SHUT_WR);
	get(p->from, 0, 1000);
	get_end(p->from);
	wait_for(child);
}

static void killed_writer(const struct pair *p)
{
	pid_t child = fork();

	if (!child) {
		put(p->from, 0, 30000);
		raise(SIGKILL);
	}
	close(p->from);
	waitpid(child, 0, 0);
	get(p->to, 0, 30000);
	get_end(p->to);
}

#define SHARED_BYTES (8u << 20)

struct share {
	pthread_t thread;
	int fd;
	uint64_t count, sum;
};

static void add_up(struct share *s, const unsigned char *text, ssize_t bytes)
{
	ssize_t i;

	s->count += bytes;
	for (i = 0; i < bytes; i++)
		s->sum += text[i];
}

static void *sharing(void *argument)
{
	struct share *s = argument;
	unsigned char text[20000];
	ssize_t got;

	while ((got = recv(s->fd, text, sizeof(text), 0)) > 0)
		add_up(s, text, got);
	NEED_IS(got, 0, "recv at the end");
	return 0;
}

static void two_readers(const struct pair *p)
{
	struct feeder data = {.fd = p->from, .bytes = SHARED_BYTES, .chunk = 30000, .shut = 1};
	struct share readers[2] = {{.fd = p->to}, {.fd = p->to}}, due = {0};
	unsigned char *text = malloc(SHARED_BYTES);

	content_fill(1, 0, text, SHARED_BYTES);
	add_up(&due, text, SHARED_BYTES);
	NEED(!pthread_create(&readers[0].thread, 0, sharing, &readers[0]), "no thread");
	NEED(!pthread_create(&readers[1].thread, 0, sharing, &readers[1]), "no thread");
	feed(&data);
	pthread_join(readers[0].thread, 0);
	pthread_join(readers[1].thread, 0);
	fed(&data);
	NEED_IS(readers[0].count + readers[1].count, SHARED_BYTES, "bytes of both readers");
	NEED_IS(readers[0].sum + readers[1].sum, due.sum, "sum over the bytes of both readers");
}

static void two_writers(const struct pair *p)
{
	struct feeder first = {.fd = p->from, .bytes = SHARED_BYTES, .chunk = 8192};
	struct feeder second = {.fd = p->from, .bytes = SHARED_BYTES, .chunk = 300};
	struct share reader = {.fd = p->to}, due = {0};
	unsigned char *text = malloc(SHARED_BYTES);

	content_fill(1, 0, text, SHARED_BYTES);
	add_up(&due, text, SHARED_BYTES);
	NEED(!pthread_create(&reader.thread, 0, sharing, &reader), "no thread");
	feed(&first);
	feed(&second);
	fed(&first);
	fed(&second);
	shutdown(p->from, SHUT_WR);
	pthread_join(reader.thread, 0);
	NEED_IS(reader.count, 2 * SHARED_BYTES, "bytes of both writers");
	NEED_IS(reader.sum, 2 * due.sum, "sum over the bytes of both writers");
}

/* Both ends send at once, more than fits anywhere. */
static void both_ways(const struct pair *p)
{
	struct feeder there = {.fd = p->from, .bytes = 16 << 20},
		      back = {.fd = p->to, .bytes = 16 << 20};
	uint64_t at;

	feed(&there);
	feed(&back);
	for (at = 0; at < 16 << 20; at += 1 << 18) {
		get(p->to, at, 1 << 18);
		get(p->from, at, 1 << 18);
	}
	fed(&there);
	fed(&back);
}

static void ping_pong(const struct pair *p)
{
	int i;

	for (i = 0; i < 1000; i++) {
		put(p->from, i, 64 + i);
		get(p->to, i, 64 + i);
		put(p->to, i, 1);
		get(p->from, i, 1);
	}
}

const struct check share_checks[] = {{"names", names, 0},
				     {"duplicate", duplicate, 0},
				     {"forked_readers", forked_readers, 0},
				     {"handed_to_child", handed_to_child, 0},
				     {"killed_writer", killed_writer, 0},
				     {"two_readers", two_readers, 0},
				     {"two_writers", two_writers, 0},
				     {"both_ways", both_ways, 0},
				     {"ping_pong", ping_pong, 0},
				     {0, 0, 0}};
