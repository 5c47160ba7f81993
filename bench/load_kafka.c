/* A Kafka client that says one thing again and again. One JSON object on standard output.
 *
 *   load HOST PORT FILE PLACE IN_FLIGHT SECONDS BYTES
 *
 * FILE holds the frame of a request, whose correlation id counts up. At most IN_FLIGHT of them wait
 * for their responses, in each of which a 16-bit error code stands at PLACE. It ends after SECONDS,
 * or once BYTES went both ways together: count, seconds, bytes, p50_us, p99_us.
 */
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

#define MAX_FRAME   (32u << 20)
#define MAX_SAMPLES (4u << 20)
#define READ_SIZE   (1u << 20)
#define MAX_PLACE   512
#define MAX_FLIGHT  64

static char request[MAX_FRAME], buffer[READ_SIZE];
static uint32_t samples[MAX_SAMPLES];
static size_t buffered, used;

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
	ssize_t size = fd < 0 ? -1 : read(fd, request, sizeof(request));
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

static void ask(int fd, size_t size, uint32_t number)
{
	uint32_t there = htonl(number);
	memcpy(request + 8, &there, sizeof(there));
	for (size_t done = 0; done < size;) {
		ssize_t count = send(fd, request + done, size - done, MSG_NOSIGNAL);
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

static size_t hear(int fd, uint32_t number, size_t place)
{
	static char begin[MAX_PLACE];
	uint32_t size, answers;
	take(fd, begin, place + 2);
	memcpy(&size, begin, sizeof(size));
	memcpy(&answers, begin + 4, sizeof(answers));
	size = ntohl(size) + 4;
	if (ntohl(answers) != number || size < place + 2 || begin[place] || begin[place + 1]) {
		fprintf(stderr, "request %u: %u bytes answer %u, code %d\n", number, size,
			ntohl(answers), begin[place + 1]);
		exit(1);
	}
	take(fd, NULL, size - place - 2);
	return size;
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

int main(int argc, char **words)
{
	static double asked[MAX_FLIGHT];
	if (argc != 8) {
		fprintf(stderr, "load HOST PORT FILE PLACE IN_FLIGHT SECONDS BYTES\n");
		return 2;
	}
	size_t size = load(words[3]), place = atoi(words[4]), flight = atoi(words[5]), bytes = 0,
	       kept = 0;
	double seconds = atof(words[6]), most = atof(words[7]), begin, time;
	uint32_t sent = 0, heard = 0;
	int fd = start(words[1], words[2]);
	if (place + 2 > MAX_PLACE || flight < 1 || flight > MAX_FLIGHT)
		return 2;
	begin = time = now();
	do {
		for (; sent - heard < flight; sent++, bytes += size) {
			asked[sent % flight] = now();
			ask(fd, size, sent);
		}
		bytes += hear(fd, heard, place);
		time = now();
		if (kept < MAX_SAMPLES)
			samples[kept++] = (time - asked[heard % flight]) * 1e9;
		heard++;
	} while (time - begin < seconds && bytes < most);
	bytes -= (sent - heard) * size;
	qsort(samples, kept, sizeof(*samples), ascending);
	printf("{\"count\": %u, \"seconds\": %.6f, \"bytes\": %zu, \"p50_us\": %.3f, \"p99_us\": "
	       "%.3f}\n",
	       heard, time - begin, bytes, percentile(kept, 0.5), percentile(kept, 0.99));
	return 0;
}
