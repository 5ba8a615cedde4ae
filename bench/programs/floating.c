/*
 * Nine floating point and SIMD loops: scalar SSE2, packed SSE2, AVX2 with FMA
 * where the CPU has it, x87, and byte scanning with vectors.
 */
#include <emmintrin.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "bench.h"

static uint64_t
bits(double d)
{
	uint64_t u;

	memcpy(&u, &d, sizeof(u));
	return u;
}

static uint64_t
nbody(uint64_t rounds)
{
	enum { N = 5 };
	double p[N][3], v[N][3] = {{0}}, m[N];

	for (int i = 0; i < N; i++) {
		m[i] = 1.0 / (i + 1);
		for (int k = 0; k < 3; k++)
			p[i][k] = i * 1.5 + k * 0.3;
	}
	while (rounds--) {
		for (int i = 0; i < N; i++) {
			for (int j = i + 1; j < N; j++) {
				double d[3], r2 = 0.01;

				for (int k = 0; k < 3; k++) {
					d[k] = p[i][k] - p[j][k];
					r2 += d[k] * d[k];
				}
				double f = 0.001 / (r2 * sqrt(r2));

				for (int k = 0; k < 3; k++) {
					v[i][k] -= d[k] * m[j] * f;
					v[j][k] += d[k] * m[i] * f;
				}
			}
		}
		for (int i = 0; i < N; i++)
			for (int k = 0; k < 3; k++)
				p[i][k] += 0.001 * v[i][k];
	}
	return bits(p[0][0] + p[4][2]);
}

static uint64_t
mandelbrot(uint64_t rounds)
{
	uint64_t inside = 0;

	while (rounds--) {
		for (int y = 0; y < 100; y++) {
			for (int x = 0; x < 100; x++) {
				double cr = x * 0.03 - 2, ci = y * 0.02 - 1, r = 0, i = 0;
				int n = 0;

				for (; n < 100 && r * r + i * i < 4; n++) {
					double t = r * r - i * i + cr;

					i = 2 * r * i + ci;
					r = t;
				}
				inside += (uint64_t)n;
			}
		}
	}
	return inside;
}

static uint64_t
matmul(uint64_t rounds)
{
	enum { N = 96 };
	static double a[N][N], b[N][N], c[N][N];

	for (int i = 0; i < N * N; i++) {
		a[i / N][i % N] = 1.0 / (i + 1);
		b[i / N][i % N] = i % 7;
	}
	while (rounds--) {
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++)
				for (int j = 0; j < N; j++)
					c[i][j] += a[i][k] * b[k][j];
		__asm__ volatile("" : : : "memory");
	}
	return bits(c[3][5] + c[90][17]);
}

static uint64_t
fft(uint64_t rounds)
{
	enum { N = 1024 };
	static double re[N], im[N];

	for (int i = 0; i < N; i++)
		re[i] = i % 31, im[i] = 0;
	while (rounds--) {
		for (int len = N; len > 1; len /= 2) {
			double angle = -2 * 3.14159265358979 / len;
			double wr = 1 - angle * angle / 2, wi = angle;

			for (int s = 0; s < N; s += len) {
				double cr = 1, ci = 0;

				for (int k = s; k < s + len / 2; k++) {
					int o = k + len / 2;
					double tr = re[k] - re[o], ti = im[k] - im[o];

					re[k] = (re[k] + re[o]) * 0.7;
					im[k] = (im[k] + im[o]) * 0.7;
					re[o] = (tr * cr - ti * ci) * 0.7;
					im[o] = (tr * ci + ti * cr) * 0.7;
					double nr = cr * wr - ci * wi;

					ci = (cr * wi + ci * wr) * 0.999;
					cr = nr * 0.999;
				}
			}
		}
		re[rounds % N] += 1;
	}
	return bits(re[1] + im[77]);
}

static uint64_t
saxpy(uint64_t rounds)
{
	enum { N = 4096 };
	static float x[N], y[N];
	__m128 a = _mm_set1_ps(1.0001f);

	for (int i = 0; i < N; i++)
		x[i] = (float)i * 1e-6f;
	while (rounds--) {
		for (int i = 0; i < N; i += 4) {
			__m128 v = _mm_mul_ps(a, _mm_loadu_ps(x + i));

			_mm_storeu_ps(y + i, _mm_add_ps(v, _mm_mul_ps(_mm_loadu_ps(y + i),
								      _mm_set1_ps(0.9f))));
		}
	}
	return bits((double)y[5] + (double)y[4000]);
}

static uint64_t
x87(uint64_t rounds)
{
	long double sum = 0, x = 1;

	for (uint64_t i = 0; i < rounds; i++) {
		x = x * 1.0000001L + 1e-9L;
		sum += 1 / x;
		__asm__ volatile("" : "+t"(x));
	}
	return bits((double)sum);
}

/* The sum is over integers held in floats, so that both ways agree bit for bit. */
__attribute__((target("avx2,fma"))) static double
dot_avx2(const float *x, const float *y, int n)
{
	__m256 s = _mm256_setzero_ps();
	float out[8];

	for (int i = 0; i < n; i += 8)
		s = _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i), s);
	_mm256_storeu_ps(out, s);
	_mm256_zeroupper();
	return (double)(out[0] + out[1] + out[2] + out[3] + out[4] + out[5] + out[6] + out[7]);
}

static double
dot_sse2(const float *x, const float *y, int n)
{
	__m128 s = _mm_setzero_ps();
	float out[4];

	for (int i = 0; i < n; i += 4)
		s = _mm_add_ps(s, _mm_mul_ps(_mm_loadu_ps(x + i), _mm_loadu_ps(y + i)));
	_mm_storeu_ps(out, s);
	return (double)(out[0] + out[1] + out[2] + out[3]);
}

static uint64_t
dot(uint64_t rounds)
{
	enum { N = 4096 };
	static float x[N], y[N];
	int wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	double sum = 0;

	for (int i = 0; i < N; i++)
		x[i] = (float)(i % 8), y[i] = (float)(i % 4);
	while (rounds--) {
		sum += wide ? dot_avx2(x, y, N) : dot_sse2(x, y, N);
		__asm__ volatile("" : : : "memory");
	}
	return bits(sum);
}

static uint64_t
bytescan(uint64_t rounds)
{
	enum { N = 65536 };
	static char text[N];
	uint64_t sum = 0;

	memset(text, 'x', N);
	text[N - 3] = 0;
	while (rounds--) {
		int at = 0, mask;

		do {
			__m128i v = _mm_loadu_si128((const __m128i *)(text + at));

			mask = _mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128()));
			at += 16;
		} while (!mask);
		sum += (uint64_t)(at - 16 + __builtin_ctz((unsigned)mask));
		__asm__ volatile("" : : : "memory");
	}
	return sum;
}

static uint64_t
libm(uint64_t rounds)
{
	double sum = 0;

	for (uint64_t i = 1; i <= rounds; i++) {
		double x = (double)(i % 1000) * 0.001 + 0.5;

		sum += exp(x) * sin(x) + log(x) / cos(x) + pow(x, 1.3);
	}
	/* libm picks other routines on CPUs with FMA: their last bits differ. */
	return (uint64_t)(sum * 1e-3);
}

static const struct bench table[] = {
	{"nbody", nbody, 3000000}, {"mandelbrot", mandelbrot, 250}, {"matmul", matmul, 500},
	{"fft", fft, 11000},	   {"saxpy", saxpy, 150000},	    {"x87", x87, 60000000},
	{"dot", dot, 250000},	   {"bytescan", bytescan, 60000},   {"libm", libm, 4000000},
};

int
main(int argc, char **argv)
{
	return bench_main(table, sizeof(table) / sizeof(table[0]), argc, argv);
}
