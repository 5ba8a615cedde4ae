/*
 * Thirteen integer loops of different shapes: branches, calls, tables, pointer
 * chasing, byte scanning, wide multiplication, an interpreter.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static uint64_t
sieve(uint64_t rounds)
{
	enum { N = 1 << 20 };
	static uint8_t composite[N];
	uint64_t primes = 0;

	while (rounds--) {
		memset(composite, 0, N);
		for (uint32_t i = 2; i < N; i++) {
			if (composite[i])
				continue;
			primes++;
			for (uint64_t j = (uint64_t)i * i; j < N; j += i)
				composite[j] = 1;
		}
	}
	return primes;
}

static uint64_t
crc32(uint64_t rounds)
{
	uint32_t table[256], crc = 0xffffffff;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
	}
	for (uint64_t i = 0; i < rounds; i++)
		crc = crc >> 8 ^ table[(crc ^ i) & 0xff];
	return crc;
}

static int
compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint64_t
sort(uint64_t rounds)
{
	enum { N = 50000 };
	static uint32_t v[N];
	uint64_t seed = 7, sum = 0;

	while (rounds--) {
		for (int i = 0; i < N; i++)
			v[i] = (uint32_t)bench_random(&seed);
		qsort(v, N, sizeof(v[0]), compare_u32);
		sum = sum * 31 + v[N / 3];
	}
	return sum;
}

static uint64_t
matrix(uint64_t rounds)
{
	enum { N = 64 };
	static int32_t a[N][N], b[N][N];
	static volatile int32_t c[N][N];
	uint64_t sum = 0;

	for (int i = 0; i < N * N; i++) {
		a[i / N][i % N] = i % 17;
		b[i / N][i % N] = i % 23;
	}
	while (rounds--) {
		for (int i = 0; i < N; i++) {
			for (int j = 0; j < N; j++) {
				int32_t s = 0;

				for (int k = 0; k < N; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
		}
		a[rounds % N][3]++;
		sum += (uint32_t)c[rounds % N][5];
	}
	return sum;
}

static uint64_t __attribute__((noinline)) fibonacci_of(uint64_t n)
{
	/* Kept a true double recursion: gcc must not make a loop of it. */
	__asm__ volatile("" : "+r"(n));
	return n < 2 ? n : fibonacci_of(n - 1) + fibonacci_of(n - 2);
}

static uint64_t
fibonacci(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--)
		sum += fibonacci_of(25);
	return sum;
}

struct node {
	struct node *next;
	uint64_t value;
};

static uint64_t
chase(uint64_t rounds)
{
	enum { N = 4096 };
	static struct node nodes[N];
	uint64_t seed = 3, sum = 0;
	uint32_t order[N];

	for (uint32_t i = 0; i < N; i++)
		order[i] = i;
	for (uint32_t i = N - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(bench_random(&seed) % (i + 1)), t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	for (uint32_t i = 0; i < N; i++)
		nodes[order[i]] = (struct node){&nodes[order[(i + 1) % N]], i};
	for (const struct node *n = &nodes[0]; rounds--; n = n->next)
		sum += n->value;
	return sum;
}

static uint64_t
hash(uint64_t rounds)
{
	enum { SLOTS = 1 << 16 };
	static uint64_t keys[SLOTS], values[SLOTS];
	uint64_t seed = 11, sum = 0;

	while (rounds--) {
		uint64_t key = bench_random(&seed) % 40000 + 1;
		uint64_t slot = key * 0x9e3779b97f4a7c15ull >> 48;

		while (keys[slot] && keys[slot] != key)
			slot = (slot + 1) % SLOTS;
		keys[slot] = key;
		sum += values[slot]++;
	}
	return sum;
}

static uint64_t
queens_from(uint32_t all, uint32_t columns, uint32_t left, uint32_t right)
{
	uint64_t found = 0;

	if (columns == all)
		return 1;
	for (uint32_t free = all & ~(columns | left | right); free; free &= free - 1) {
		uint32_t bit = free & -free;

		found += queens_from(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
	}
	return found;
}

static uint64_t
queens(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--)
		sum += queens_from((1 << 10) - 1, 0, 0, 0);
	return sum;
}

static uint64_t
search(uint64_t rounds)
{
	static char text[65536];
	static const char word[] = "needle";
	uint64_t seed = 5, found = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + bench_random(&seed) % 26);
	for (size_t i = 1000; i + 10 < sizeof(text); i += 9000)
		memcpy(text + i, word, sizeof(word) - 1);
	while (rounds--) {
		for (size_t i = 0; i + sizeof(word) - 1 <= sizeof(text); i++) {
			size_t k = 0;

			while (k < sizeof(word) - 1 && text[i + k] == word[k])
				k++;
			found += k == sizeof(word) - 1;
		}
		__asm__ volatile("" : : : "memory");
	}
	return found;
}

static uint64_t
collatz(uint64_t rounds)
{
	uint64_t steps = 0;

	for (uint64_t i = 1; i <= rounds; i++)
		for (uint64_t n = i; n != 1; steps++)
			n = n & 1 ? 3 * n + 1 : n >> 1;
	return steps;
}

static uint64_t
multiply(uint64_t rounds)
{
	uint64_t x = 0x123456789abcdef1ull, sum = 0;

	while (rounds--) {
		unsigned __int128 p = (unsigned __int128)x * (x ^ 0x5851f42d4c957f2dull);

		x = (uint64_t)(p >> 64) ^ (uint64_t)p ^ rounds;
		sum += x / ((x >> 40) | 1);
	}
	return sum;
}

/* A stack machine that counts down: indirect jumps as interpreters make them. */
static uint64_t
interpreter(uint64_t rounds)
{
	static const uint8_t program[] = {0, 1, 2, 3, 1, 4, 2, 5, 3, 1, 0, 4, 6};
	uint64_t acc = 1, other = 2;

	while (rounds--) {
		for (const uint8_t *pc = program;;) {
			uint8_t op = *pc++;

			__asm__ volatile("" : "+r"(op));
			switch (op) {
			case 0:
				acc += other;
				break;
			case 1:
				other ^= acc << 3;
				break;
			case 2:
				acc -= rounds;
				break;
			case 3:
				other += acc >> 7;
				break;
			case 4:
				acc = acc << 1 | acc >> 63;
				break;
			case 5:
				other *= 3;
				break;
			default:
				goto next;
			}
		}
next:;
	}
	return acc ^ other;
}

/* The inner loop of MD5-like digests: additions, rotations, choices. */
static uint64_t
digest(uint64_t rounds)
{
	uint32_t a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476;

	for (uint64_t i = 0; i < rounds; i++) {
		uint32_t f = (b & c) | (~b & d);
		uint32_t t = a + f + (uint32_t)i * 0x9e3779b9u;

		a = d;
		d = c;
		c = b;
		b += t << 7 | t >> 25;
	}
	return (uint64_t)a << 32 ^ (uint64_t)b << 16 ^ c ^ d;
}

static const struct bench table[] = {
	{"sieve", sieve, 60},
	{"crc32", crc32, 100000000},
	{"sort", sort, 60},
	{"matrix", matrix, 1000},
	{"fibonacci", fibonacci, 900},
	{"chase", chase, 50000000},
	{"hash", hash, 40000000},
	{"queens", queens, 1200},
	{"search", search, 1500},
	{"collatz", collatz, 1000000},
	{"multiply", multiply, 80000000},
	{"interpreter", interpreter, 8000000},
	{"digest", digest, 100000000},
};

int
main(int argc, char **argv)
{
	return bench_main(table, sizeof(table) / sizeof(table[0]), argc, argv);
}
