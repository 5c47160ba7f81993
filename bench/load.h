/* What the loads of bench share: the file that they send, and what is read of a connection. */
#include <fcntl.h>
#include <poll.h>

#include "measure.h"

#define MAX_FILE  (32u << 20)
#define READ_SIZE (1u << 20)

static char file[MAX_FILE], buffer[READ_SIZE];
static size_t buffered, used;

static size_t load(const char *name)
{
	int fd = open(name, O_RDONLY);
	ssize_t size = fd < 0 ? -1 : read(fd, file, sizeof(file));
	if (size < 12)
		fail(name);
	close(fd);
	return size;
}

/* As drivers read: what waits within recv is left alone by splicing. */
static void fill(int fd)
{
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	ssize_t count;
	do {
		if (poll(&polled, 1, -1) < 0)
			fail("poll");
		count = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	} while (count < 0 && errno == EAGAIN);
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

/* One JSON object on standard output. */
static void tell(uint32_t count, double seconds, size_t bytes)
{
	sort_samples();
	printf("{\"count\": %u, \"seconds\": %.6f, \"bytes\": %zu, \"p50_us\": %.3f, \"p99_us\": "
	       "%.3f}\n",
	       count, seconds, bytes, percentile(0.5), percentile(0.99));
}
