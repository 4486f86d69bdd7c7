/* Mel power and pitch candidates of windows, as numpy computes them in spectra.py, in one pass through memory.
 *
 * A variable of type `lanes` holds one number of each of LANES neighbouring frames. So nothing is shuffled once
 * samples are transposed, a frame's result does not depend on its neighbours, and the compiler needs no hints.
 * Tables come from compiled.py, which names them alike.
 */

#include <stdlib.h>

#ifdef __AVX2__
#define LANES 8
#define LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LANES 4
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#endif
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int mask __attribute__((vector_size(4 * LANES)));
typedef float unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Of a real sequence of 2 * size numbers: a complex transform of its pairs, which is untangled afterwards. */
struct transform {
    int size;              /* a power of two */
    const float *twiddles; /* of every pass, in order of use */
    const int *order;      /* (size + 1): where number k of the result lies; the last is the first again */
    const float *roots;    /* (size / 2 + 1, 2): cosine and sine of -pi k / size */
};

struct plan {
    int hop_length, n_frames, n_mels;
    const float *taper;           /* (2 * frame.size) */
    struct transform frame;
    const int *reach;             /* (n_mels + 1): where the weights of each filter begin */
    const int *bins;              /* of every weight */
    const float *weights;
    int has_pitch;
    struct transform correlation; /* of power in bins 0 to correlation.size */
    int first_bin, shortest, longest;
    const float *correction;      /* (longest + 2): 1 / autocorrelation of the taper */
    const float *cost;            /* (longest + 1), by lag */
};

/* Bytes of a plan, or 0 on a processor without the instructions that this was compiled to. */
int plan_bytes(void) {
#ifdef __AVX2__
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
#endif
    return sizeof(struct plan);
}

static inline lanes all(float value) {
    return (lanes){0} + value;
}

static inline lanes choose(mask which, lanes yes, lanes no) {
    return (lanes)(((mask)yes & which) | ((mask)no & ~which));
}

/* LANES vectors of LANES numbers: rows become columns. */
static inline void transpose(lanes *rows) {
    for (int turn = 1; turn < LANES; turn *= 2) {
        lanes next[LANES];
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = SHUFFLE(rows[i], rows[i + LANES / 2], LOW_HALVES);
            next[2 * i + 1] = SHUFFLE(rows[i], rows[i + LANES / 2], HIGH_HALVES);
        }
        for (int i = 0; i < LANES; i++)
            rows[i] = next[i];
    }
}

/* Complex Fourier transform in place, decimation in frequency, radix 4 (Cooley & Tukey 1965). */
static inline void transform(const struct transform *plan, lanes *re, lanes *im) {
    const float *w = plan->twiddles;
    int size = plan->size, n = size;
    for (; n >= 4; n /= 4) {
        int q = n / 4;
        for (int k = 0; k < q; k++, w += 6) {
            for (int a = k; a < size; a += n) {
                int b = a + q, c = b + q, d = c + q;
                lanes even_re = re[a] + re[c], even_im = im[a] + im[c];
                lanes diff_re = re[a] - re[c], diff_im = im[a] - im[c];
                lanes odd_re = re[b] + re[d], odd_im = im[b] + im[d];
                lanes turned_re = im[b] - im[d], turned_im = re[d] - re[b];
                re[a] = even_re + odd_re;
                im[a] = even_im + odd_im;
                lanes x = diff_re + turned_re, y = diff_im + turned_im;
                re[b] = x * w[0] - y * w[1];
                im[b] = x * w[1] + y * w[0];
                x = even_re - odd_re, y = even_im - odd_im;
                re[c] = x * w[2] - y * w[3];
                im[c] = x * w[3] + y * w[2];
                x = diff_re - turned_re, y = diff_im - turned_im;
                re[d] = x * w[4] - y * w[5];
                im[d] = x * w[5] + y * w[4];
            }
        }
    }
    if (n == 2) {
        for (int a = 0; a < size; a += 2) {
            lanes x = re[a], y = im[a];
            re[a] = x + re[a + 1];
            im[a] = y + im[a + 1];
            re[a + 1] = x - re[a + 1];
            im[a + 1] = y - im[a + 1];
        }
    }
}

/* Numbers k and size - k of the spectrum of the real sequence. */
static inline void untangle(const struct transform *plan, const lanes *re, const lanes *im, int k, lanes *low_re,
                            lanes *low_im, lanes *high_re, lanes *high_im) {
    int a = plan->order[k], b = plan->order[plan->size - k];
    float c = plan->roots[2 * k], s = plan->roots[2 * k + 1];
    lanes even_re = 0.5f * (re[a] + re[b]), even_im = 0.5f * (im[a] - im[b]);
    lanes odd_re = 0.5f * (im[a] + im[b]), odd_im = 0.5f * (re[b] - re[a]);
    lanes x = odd_re * c - odd_im * s, y = odd_re * s + odd_im * c;
    *low_re = even_re + x;
    *low_im = even_im + y;
    *high_re = even_re - x;
    *high_im = y - even_im;
}

static void tapered_frames(const struct plan *plan, const float *samples, float gain, int first, lanes *re, lanes *im) {
    const float *frames[LANES];
    for (int l = 0; l < LANES; l++) { /* behind the last frame it is repeated */
        int frame = first + l < plan->n_frames ? first + l : plan->n_frames - 1;
        frames[l] = samples + (long)frame * plan->hop_length;
    }
    for (int i = 0; i < 2 * plan->frame.size; i += LANES) {
        lanes rows[LANES], weight = *(const unaligned *)(plan->taper + i) * gain;
        for (int l = 0; l < LANES; l++)
            rows[l] = *(const unaligned *)(frames[l] + i) * weight;
        transpose(rows);
        for (int l = 0; l < LANES; l += 2) {
            re[(i + l) / 2] = rows[l];
            im[(i + l) / 2] = rows[l + 1];
        }
    }
}

/* Write one number of each frame; there are `n` frames, at most LANES. */
static inline void put(float *to, lanes values, int n) {
    if (n >= LANES) {
        *(unaligned *)to = values;
    } else {
        for (int l = 0; l < n; l++)
            to[l] = values[l];
    }
}

static void mel_power(const struct plan *plan, const lanes *power, float *mel, int n) {
    for (int m = 0; m < plan->n_mels; m++) {
        lanes sum = all(0);
        for (int i = plan->reach[m]; i < plan->reach[m + 1]; i++)
            sum += power[plan->bins[i]] * plan->weights[i];
        put(mel + (long)m * plan->n_frames, sum, n);
    }
}

/* Of each frame the best lag and the normalised autocorrelation before, at and behind it: four rows of `peaks`.
 * What was in `power` becomes the autocorrelation. */
static void pitch_peaks(const struct plan *plan, lanes *power, lanes *re, lanes *im, float *peaks, int n) {
    const struct transform *correlation = &plan->correlation;
    int size = correlation->size;
    for (int i = 0; i < size; i++) { /* the spectrum and its mirror image */
        int even = 2 * i <= size ? 2 * i : 2 * size - 2 * i;
        int odd = 2 * i + 1 <= size ? 2 * i + 1 : 2 * size - 2 * i - 1;
        re[i] = even < plan->first_bin ? all(0) : power[even];
        im[i] = odd < plan->first_bin ? all(0) : power[odd];
    }
    transform(correlation, re, im);
    lanes *at_lag = power;
    for (int k = 0; k <= size / 2; k++) {
        lanes low_im, high_im;
        untangle(correlation, re, im, k, &at_lag[k], &low_im, &at_lag[size - k], &high_im);
    }
    lanes least = all(2e-9f * size), scale = 1 / choose(at_lag[0] > least, at_lag[0], least);
    for (int lag = plan->shortest - 1; lag <= plan->longest + 1; lag++)
        at_lag[lag] *= scale * plan->correction[lag];
    lanes best = all(plan->shortest), most = at_lag[plan->shortest] - plan->cost[plan->shortest];
    for (int lag = plan->shortest + 1; lag <= plan->longest; lag++) {
        lanes strength = at_lag[lag] - plan->cost[lag];
        mask better = strength > most;
        most = choose(better, strength, most);
        best = choose(better, all(lag), best);
    }
    for (int l = 0; l < LANES && l < n; l++) {
        int lag = (int)best[l];
        peaks[l] = best[l];
        for (int offset = -1; offset <= 1; offset++)
            peaks[(2 + offset) * (long)plan->n_frames + l] = at_lag[lag + offset][l];
    }
}

/* Analyse windows (n_windows, n_samples), each brought to its gain (n_windows).
 *
 * mel: (n_windows, n_mels, n_frames); peaks: (n_windows, 4, n_frames), see pitch_peaks, unused without pitch.
 * Returns 0, or -1 when there is no memory.
 */
int analyse(const struct plan *plan, const float *windows, const float *gain, long n_windows, long n_samples,
            float *mel, float *peaks) {
    int size = plan->frame.size;
    lanes *re = aligned_alloc(sizeof(lanes), sizeof(lanes) * (3 * (size_t)size + LANES));
    if (!re)
        return -1;
    lanes *im = re + size, *power = im + size;
    for (long window = 0; window < n_windows; window++) {
        for (int first = 0; first < plan->n_frames; first += LANES) {
            int n = plan->n_frames - first;
            tapered_frames(plan, windows + window * n_samples, gain[window], first, re, im);
            transform(&plan->frame, re, im);
            for (int k = 0; k <= size / 2; k++) {
                lanes low_re, low_im, high_re, high_im;
                untangle(&plan->frame, re, im, k, &low_re, &low_im, &high_re, &high_im);
                power[k] = low_re * low_re + low_im * low_im;
                power[size - k] = high_re * high_re + high_im * high_im;
            }
            mel_power(plan, power, mel + window * plan->n_mels * plan->n_frames + first, n);
            if (plan->has_pitch)
                pitch_peaks(plan, power, re, im, peaks + window * 4 * plan->n_frames + first, n);
        }
    }
    free(re);
    return 0;
}
