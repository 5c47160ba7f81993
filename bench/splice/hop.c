/* Two plain sockets and what a hop between them costs. One JSON object on standard output.
 *
 *   hop serve HOST PORT
 *       serves the others, one connection after another; says "ready"
 *   hop rtt HOST PORT SIZE SECONDS
 *       round trips of SIZE bytes: per_s, p50_us, p99_us, count
 *   hop stream HOST PORT SIZE SECONDS
 *       writes of SIZE bytes one way, until the reader has all: gbps, bytes
 *   hop connect HOST PORT SECONDS
 *       connect, one byte each way, close: per_s, p50_us, p99_us, count
 */
#include "../measure.h"

#define MAX_SIZE  (4u << 20)
#define READ_SIZE (64u << 10)
/* Seconds: the first bytes are the stack's, spliced or not. */
#define WARM_UP 0.1

static char buffer[MAX_SIZE];

/* Whether all came; false at the end of the stream. */
static int read_all(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t count = receive(fd, (char *)to + done, size - done);
		if (count < 0)
			fail("recv");
		if (count == 0)
			return 0;
		done += count;
	}
	return 1;
}

static void serve_echo(int fd)
{
	uint32_t size;
	if (!read_all(fd, &size, sizeof(size)) || size > MAX_SIZE)
		return;
	while (read_all(fd, buffer, size))
		say(fd, buffer, size);
}

static void serve_sink(int fd)
{
	uint64_t total = 0;
	ssize_t count;
	while ((count = receive(fd, buffer, READ_SIZE)) > 0)
		total += count;
	if (count < 0)
		fail("recv");
	say(fd, &total, sizeof(total));
}

/* The client closes first, so that it is its port that waits. */
static void serve_byte(int fd)
{
	say(fd, "y", 1);
	receive(fd, buffer, 1);
}

static void serve(char **words)
{
	struct sockaddr_in at = address(words[0], words[1]);
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 1024))
		fail("listen");
	puts("ready");
	fflush(stdout);
	for (;;) {
		char mode = 0;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			fail("accept");
		no_delay(fd);
		read_all(fd, &mode, 1);
		if (mode == 'e')
			serve_echo(fd);
		else if (mode == 's')
			serve_sink(fd);
		else if (mode == 'c')
			serve_byte(fd);
		close(fd);
	}
}

static int begin_with(char **words, char mode)
{
	int fd = start(words[0], words[1]);
	say(fd, &mode, 1);
	return fd;
}

static void report(double seconds)
{
	sort_samples();
	printf("{\"per_s\": %.1f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"count\": %zu}\n",
	       kept / seconds, percentile(0.5), percentile(0.99), kept);
}

static void round_trips(char **words)
{
	uint32_t size = atoi(words[2]);
	double seconds = atof(words[3]), begin, before, after = 0;
	int fd = begin_with(words, 'e');
	say(fd, &size, sizeof(size));
	for (begin = before = now() + WARM_UP; !kept || after < begin + seconds;) {
		before = now();
		say(fd, buffer, size);
		if (!read_all(fd, buffer, size))
			fail("the server ended");
		after = now();
		if (before >= begin)
			sample(after - before);
	}
	close(fd);
	report(after - begin);
}

static void stream(char **words)
{
	uint32_t size = atoi(words[2]);
	double seconds = atof(words[3]), begin;
	uint64_t sent = 0, taken = 0;
	int fd = begin_with(words, 's');
	for (begin = now(); now() < begin + seconds; sent += size)
		say(fd, buffer, size);
	shutdown(fd, SHUT_WR);
	if (!read_all(fd, &taken, sizeof(taken)) || taken != sent) {
		fprintf(stderr, "sent %llu, taken %llu\n", (unsigned long long)sent,
			(unsigned long long)taken);
		exit(1);
	}
	printf("{\"gbps\": %.4f, \"bytes\": %llu}\n", sent / (now() - begin) / 1e9,
	       (unsigned long long)sent);
	close(fd);
}

static void connections(char **words)
{
	double seconds = atof(words[2]), begin = now(), before, after = begin;
	do {
		before = now();
		int fd = begin_with(words, 'c');
		if (!read_all(fd, buffer, 1))
			fail("the server ended");
		close(fd);
		after = now();
		sample(after - before);
	} while (after < begin + seconds);
	report(after - begin);
}

int main(int count, char **words)
{
	if (count == 4 && !strcmp(words[1], "serve"))
		serve(words + 2);
	else if (count == 6 && !strcmp(words[1], "rtt"))
		round_trips(words + 2);
	else if (count == 6 && !strcmp(words[1], "stream"))
		stream(words + 2);
	else if (count == 5 && !strcmp(words[1], "connect"))
		connections(words + 2);
	else
		return fprintf(stderr, "usage: see the source\n"), 2;
	return 0;
}
