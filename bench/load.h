/* What the loads of bench share: a connection, what is read of it, and how long answers took. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILE    (32u << 20)
#define MAX_SAMPLES (4u << 20)
#define READ_SIZE   (1u << 20)

static char file[MAX_FILE], buffer[READ_SIZE];
static uint32_t samples[MAX_SAMPLES];
static size_t buffered, used, kept;

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

static size_t load(const char *name)
{
	int fd = open(name, O_RDONLY);
	ssize_t size = fd < 0 ? -1 : read(fd, file, sizeof(file));
	if (size < 12)
		fail(name);
	close(fd);
	return size;
}

static int start(const char *host, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1 || fd < 0)
		fail(host);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		fail("TCP_NODELAY");
	return fd;
}

static void say(int fd, const char *bytes, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t count = send(fd, bytes + done, size - done, MSG_NOSIGNAL);
		if (count <= 0)
			fail("send");
		done += count;
	}
}

/* A read of a spliced socket that waits may be woken for nothing, and ends with EAGAIN then
 * (docs/splice.md). */
static void fill(int fd)
{
	ssize_t count;
	do
		count = recv(fd, buffer, sizeof(buffer), 0);
	while (count < 0 && errno == EAGAIN);
	if (count <= 0)
		fail("recv");
	buffered = count;
	used = 0;
}

/* The next bytes of a response; they are kept in `to` if that is not NULL. */
static void take(int fd, char *to, size_t size)
{
	while (size) {
		if (used == buffered)
			fill(fd);
		size_t count = buffered - used < size ? buffered - used : size;
		if (to) {
			memcpy(to, buffer + used, count);
			to += count;
		}
		used += count;
		size -= count;
	}
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

static double percentile(double part)
{
	return samples[(size_t)((kept - 1) * part)] / 1e3;
}

/* One JSON object on standard output. */
static void tell(uint32_t count, double seconds, size_t bytes)
{
	qsort(samples, kept, sizeof(*samples), ascending);
	printf("{\"count\": %u, \"seconds\": %.6f, \"bytes\": %zu, \"p50_us\": %.3f, \"p99_us\": "
	       "%.3f}\n",
	       count, seconds, bytes, percentile(0.5), percentile(0.99));
}
