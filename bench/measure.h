/* What the programs that measure share: a connection, and how long answers took. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SAMPLES (4u << 20)

static uint32_t samples[MAX_SAMPLES];
static size_t kept;

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

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
		fail(host);
	return to;
}

static void no_delay(int fd)
{
	int one = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		fail("TCP_NODELAY");
}

static int start(const char *host, const char *port)
{
	struct sockaddr_in to = address(host, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	no_delay(fd);
	return fd;
}

static void say(int fd, const void *bytes, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t count = send(fd, (const char *)bytes + done, size - done, MSG_NOSIGNAL);
		if (count <= 0)
			fail("send");
		done += count;
	}
}

/* As recv. A read of a spliced socket that waits may be woken for nothing, and ends with EAGAIN
 * then (docs/splice.md). */
static ssize_t receive(int fd, void *to, size_t size)
{
	ssize_t count;
	do
		count = recv(fd, to, size, 0);
	while (count < 0 && errno == EAGAIN);
	return count;
}

static void sample(double seconds)
{
	if (kept < MAX_SAMPLES)
		samples[kept++] = seconds * 1e9;
}

static int ascending(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
	return (a > b) - (a < b);
}

static void sort_samples(void)
{
	qsort(samples, kept, sizeof(*samples), ascending);
}

/* Microseconds, once the samples are sorted. */
static double percentile(double part)
{
	return samples[(size_t)((kept - 1) * part)] / 1e3;
}
