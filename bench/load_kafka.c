/* A Kafka client that says one thing again and again. One JSON object on standard output.
 *
 *   load HOST PORT FILE PLACE IN_FLIGHT SECONDS BYTES
 *
 * FILE holds the frame of a request, whose correlation id counts up. At most IN_FLIGHT of them wait
 * for their responses, in each of which a 16-bit error code stands at PLACE. It ends after SECONDS,
 * or once BYTES went both ways together: count, seconds, bytes, p50_us, p99_us.
 */
#include "load.h"

#define MAX_PLACE  512
#define MAX_FLIGHT 64

static void ask(int fd, size_t size, uint32_t number)
{
	uint32_t there = htonl(number);
	memcpy(file + 8, &there, sizeof(there));
	say(fd, file, size);
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

int main(int argc, char **words)
{
	static double asked[MAX_FLIGHT];
	if (argc != 8) {
		fprintf(stderr, "load HOST PORT FILE PLACE IN_FLIGHT SECONDS BYTES\n");
		return 2;
	}
	size_t size = load(words[3]), place = atoi(words[4]), flight = atoi(words[5]), bytes = 0;
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
		sample(time - asked[heard % flight]);
		heard++;
	} while (time - begin < seconds && bytes < most);
	bytes -= (sent - heard) * size;
	tell(heard, time - begin, bytes);
	return 0;
}
