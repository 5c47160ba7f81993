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
#include <errno.h>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIZE    (4u << 20)
#define MAX_SAMPLES (4u << 20)
#define READ_SIZE   (64u << 10)
/* Seconds: the first bytes are the stack's, spliced or not. */
#define WARM_UP 0.1

static char buffer[MAX_SIZE];
static uint32_t samples[MAX_SAMPLES];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static struct sockaddr_in address(char **words)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
	if (inet_pton(AF_INET, words[0], &to.sin_addr) != 1)
		fail(words[0]);
	return to;
}

static void write_all(int fd, const void *from, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t count = send(fd, (const char *)from + done, size - done, MSG_NOSIGNAL);
		if (count <= 0)
			fail("send");
		done += count;
	}
}

/* A read of a spliced socket that waits may be woken for nothing, and ends with EAGAIN then
 * (docs/splice.md). */
static ssize_t take(int fd, void *to, size_t size)
{
	ssize_t count;
	do
		count = recv(fd, to, size, 0);
	while (count < 0 && errno == EAGAIN);
	return count;
}

/* Whether all came; false at the end of the stream. */
static int read_all(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t count = take(fd, (char *)to + done, size - done);
		if (count < 0)
			fail("recv");
		if (count == 0)
			return 0;
		done += count;
	}
	return 1;
}

static void no_delay(int fd)
{
	int one = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		fail("TCP_NODELAY");
}

static void serve_echo(int fd)
{
	uint32_t size;
	if (!read_all(fd, &size, sizeof(size)) || size > MAX_SIZE)
		return;
	while (read_all(fd, buffer, size))
		write_all(fd, buffer, size);
}

static void serve_sink(int fd)
{
	uint64_t total = 0;
	ssize_t count;
	while ((count = take(fd, buffer, READ_SIZE)) > 0)
		total += count;
	if (count < 0)
		fail("recv");
	write_all(fd, &total, sizeof(total));
}

/* The client closes first, so that it is its port that waits. */
static void serve_byte(int fd)
{
	write_all(fd, "y", 1);
	take(fd, buffer, 1);
}

static void serve(char **words)
{
	struct sockaddr_in at = address(words);
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

static int start(char **words, char mode)
{
	struct sockaddr_in to = address(words);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	no_delay(fd);
	write_all(fd, &mode, 1);
	return fd;
}

static int ascending(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
	return (a > b) - (a < b);
}

static double percentile(size_t count, double part)
{
	return samples[(size_t)((count - 1) * part)] / 1e3;
}

static size_t note(size_t count, double took)
{
	if (count < MAX_SAMPLES)
		samples[count++] = took * 1e9;
	return count;
}

static void report(size_t count, double seconds)
{
	qsort(samples, count, sizeof(*samples), ascending);
	printf("{\"per_s\": %.1f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"count\": %zu}\n",
	       count / seconds, percentile(count, 0.5), percentile(count, 0.99), count);
}

static void round_trips(char **words)
{
	uint32_t size = atoi(words[2]);
	double seconds = atof(words[3]), begin, before, after = 0;
	size_t count = 0;
	int fd = start(words, 'e');
	write_all(fd, &size, sizeof(size));
	for (begin = before = now() + WARM_UP; !count || after < begin + seconds;) {
		before = now();
		write_all(fd, buffer, size);
		if (!read_all(fd, buffer, size))
			fail("the server ended");
		after = now();
		if (before >= begin)
			count = note(count, after - before);
	}
	close(fd);
	report(count, after - begin);
}

static void stream(char **words)
{
	uint32_t size = atoi(words[2]);
	double seconds = atof(words[3]), begin;
	uint64_t sent = 0, taken = 0;
	int fd = start(words, 's');
	for (begin = now(); now() < begin + seconds; sent += size)
		write_all(fd, buffer, size);
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
	size_t count = 0;
	do {
		before = now();
		int fd = start(words, 'c');
		if (!read_all(fd, buffer, 1))
			fail("the server ended");
		close(fd);
		after = now();
		count = note(count, after - before);
	} while (after < begin + seconds);
	report(count, after - begin);
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
