/* A CQL client that says a few things again and again. One JSON object on standard output.
 *
 *   load HOST PORT VERSION KIND FILE IN_FLIGHT SECONDS BYTES
 *
 * FILE holds what is sent, each behind its length (32 bits, network order): STARTUP; a second
 * request, which is answered with any RESULT; then requests whose streams count up from 0 to
 * IN_FLIGHT - 1, again and again. In VERSION 5 all but STARTUP are segments. At most IN_FLIGHT of
 * them wait for their answers, which come in any order; each has to be a RESULT of KIND. It ends
 * after SECONDS, or once answers of BYTES came: count, seconds, bytes, p50_us, p99_us.
 */
#include "load.h"

#define HEADER	     9
#define SEGMENT	     6
#define TRAILER	     4
#define MAX_REQUESTS (1u << 17)
#define MAX_FLIGHT   64
#define OUT_SIZE     (1u << 20)
#define RESULT	     8
#define ANY	     -1

static struct {
	const char *bytes;
	size_t size;
} requests[MAX_REQUESTS];
static size_t count, going;
static char out[OUT_SIZE];
static int version;
/* Whether answers come in segments, and how much of the one that is read is left. */
static int framed, begun;
static size_t left;

static void parse(size_t size)
{
	for (size_t place = 0; place + 4 <= size && count < MAX_REQUESTS; count++) {
		uint32_t length;
		memcpy(&length, file + place, sizeof(length));
		requests[count].bytes = file + place + 4;
		requests[count].size = ntohl(length);
		place += 4 + requests[count].size;
	}
}

static void flush(int fd)
{
	say(fd, out, going);
	going = 0;
}

static void ask(int fd, size_t number)
{
	if (requests[number].size > OUT_SIZE - going)
		flush(fd);
	memcpy(out + going, requests[number].bytes, requests[number].size);
	going += requests[number].size;
}

/* Whatever waits to be sent goes before it is waited for more. */
static void get(int fd, char *to, size_t size)
{
	if (going && size > buffered - used)
		flush(fd);
	take(fd, to, size);
}

static void next_segment(int fd)
{
	unsigned char head[SEGMENT];
	if (begun)
		get(fd, NULL, TRAILER);
	begun = 1;
	get(fd, (char *)head, sizeof(head));
	left = head[0] | head[1] << 8 | (head[2] & 1) << 16;
}

/* The next bytes of envelopes. */
static void read_on(int fd, char *to, size_t size)
{
	while (framed && size > left) {
		get(fd, to, left);
		to = to ? to + left : NULL;
		size -= left;
		next_segment(fd);
	}
	get(fd, to, size);
	if (framed)
		left -= size;
}

/* Of an answer: its size and its stream. */
static size_t hear(int fd, int kind, uint16_t *stream)
{
	unsigned char head[HEADER + 4];
	uint32_t size, found = 0;
	read_on(fd, (char *)head, HEADER);
	memcpy(stream, head + 2, sizeof(*stream));
	*stream = ntohs(*stream);
	memcpy(&size, head + 5, sizeof(size));
	size = ntohl(size);
	if (size >= 4) {
		read_on(fd, (char *)head + HEADER, 4);
		memcpy(&found, head + HEADER, sizeof(found));
		found = ntohl(found);
	}
	if (head[0] != (0x80 | version) || (kind && (head[4] != RESULT || size < 4)) ||
	    (kind > 0 && found != (uint32_t)kind)) {
		fprintf(stderr, "stream %u: version %#x, opcode %u, %u bytes, kind or code %#x\n",
			*stream, head[0], head[4], size, found);
		exit(1);
	}
	read_on(fd, NULL, size >= 4 ? size - 4 : size);
	return HEADER + size;
}

int main(int argc, char **words)
{
	static double asked[MAX_FLIGHT];
	static size_t next[MAX_FLIGHT];
	if (argc != 9) {
		fprintf(stderr, "load HOST PORT VERSION KIND FILE IN_FLIGHT SECONDS BYTES\n");
		return 2;
	}
	version = atoi(words[3]);
	parse(load(words[5]));
	size_t flight = atoi(words[6]), bytes = 0;
	int kind = atoi(words[4]), fd = start(words[1], words[2]);
	double seconds = atof(words[7]), most = atof(words[8]), begin, time;
	uint32_t heard = 0;
	uint16_t stream;
	if (flight < 1 || flight > MAX_FLIGHT || count < 2 + flight || (count - 2) % flight)
		return 2;
	ask(fd, 0);
	hear(fd, 0, &stream);
	framed = version > 4;
	ask(fd, 1);
	hear(fd, ANY, &stream);
	begin = time = now();
	for (size_t number = 0; number < flight; number++) {
		next[number] = number;
		asked[number] = begin;
		ask(fd, 2 + number);
	}
	do {
		bytes += hear(fd, kind, &stream);
		if (stream >= flight)
			return 2;
		time = now();
		sample(time - asked[stream]);
		heard++;
		asked[stream] = time;
		next[stream] = (next[stream] + flight) % (count - 2);
		ask(fd, 2 + next[stream]);
	} while (time - begin < seconds && bytes < most);
	tell(heard, time - begin, bytes);
	return 0;
}
