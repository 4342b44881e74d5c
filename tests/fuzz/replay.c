/* Runs a fuzz target without a fuzzer: replay CORPUS CASES [CASE]. Every file of the folder, then CASES mutations of them. Case n is the
 * same everywhere; when the target fails, its number is printed, and `replay CORPUS CASES n` runs that one alone, leaving its bytes in
 * ./case-n. */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_SEEDS = 200, MAX_SIZE = 1 << 16 };

static struct seed {
    char name[256];
    ns_buf data;
} seeds[MAX_SEEDS];
static int n_seeds;
static char running[300]; /* what a signal handler says */

static void on_signal(int sig)
{
    signal(sig, SIG_DFL);
    if (write(2, running, strlen(running)) >= 0)
        raise(sig);
}

/* The target gets memory of exactly the input's size, so that a sanitizer sees a byte read past its end. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *p = malloc(n ? n : 1);
    if (!p)
        abort();
    if (n)
        memcpy(p, data, n);
    LLVMFuzzerTestOneInput(p, n);
    free(p);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct seed *)a)->name, ((const struct seed *)b)->name);
}

static int read_corpus(const char *dir)
{
    char path[4096];
    ns_err e = { 0 };
    DIR *d = opendir(dir);
    if (!d) {
        fprintf(stderr, "%s: no such folder\n", dir);
        return -1;
    }
    for (struct dirent *ent; n_seeds < MAX_SEEDS && (ent = readdir(d));) {
        struct seed *s = &seeds[n_seeds];
        if (ent->d_name[0] == '.')
            continue;
        snprintf(s->name, sizeof s->name, "%s", ent->d_name);
        snprintf(path, sizeof path, "%s/%s", dir, ent->d_name);
        if (ns_file_read(path, MAX_SIZE, &s->data, &e) != 0) {
            fprintf(stderr, "%s\n", e.msg);
            break;
        }
        n_seeds++;
    }
    closedir(d);
    qsort(seeds, (size_t)n_seeds, sizeof *seeds, by_name);
    return e.code == NS_OK && n_seeds > 0 ? 0 : -1;
}

/* ---- mutations ---- */

static size_t pick(ns_rng *r, size_t n)
{
    return (size_t)(ns_rng_u64(r) % n);
}

static const char *const words[] = { "0",    "-1",   "1e999", "18446744073709551616", "2147483648", "null", "true", "{}",  "[]",   "\"\"",
                                     "[[[[", "{{{{", "\\u0000", "\xef\xbf\xbd",       "\xff",       "{{",   "}}",   "{%",  "%}",   "NaN",
                                     "\n",   "  ",   ",",     ":",                    "\"",         "\\",   "-",    "**",  "1.5",  "Infinity" };
static const uint64_t numbers[] = { 0, 1, 2, 255, 256, 32767, 32768, 65535, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
                                    0x8000000000000000, 0xffffffffffffffff, 0x100000000 };

/* Takes out `cut` bytes at `at` and puts n bytes there. */
static size_t splice(uint8_t *b, size_t len, size_t at, size_t cut, const void *p, size_t n)
{
    cut = cut < len - at ? cut : len - at;
    if (len - cut + n > MAX_SIZE)
        return len;
    memmove(b + at + n, b + at + cut, len - at - cut);
    if (n)
        memcpy(b + at, p, n);
    return len - cut + n;
}

static size_t mutate(uint8_t *b, size_t len, ns_rng *r)
{
    /* drawn one by one: the order of evaluation inside one call is the compiler's */
    size_t at = pick(r, len + 1), n = 1 + pick(r, 12), to = pick(r, len + 1), what = pick(r, 9), small = pick(r, 4);
    const struct seed *other = &seeds[pick(r, (size_t)n_seeds)];
    const char *word = words[pick(r, sizeof words / sizeof *words)];
    const uint64_t *number = &numbers[pick(r, sizeof numbers / sizeof *numbers)];
    uint8_t copy[4096], byte = (uint8_t)ns_rng_u64(r);
    switch (what) {
    case 0:
        if (at < len)
            b[at] ^= (uint8_t)(1u << byte % 8);
        return len;
    case 1:
        if (at < len)
            b[at] = byte;
        return len;
    case 2: return splice(b, len, at, n, NULL, 0);
    case 3: return splice(b, len, at, small, word, strlen(word));
    case 4: return splice(b, len, at, (size_t)1 << small, number, (size_t)1 << small);
    case 5: /* a piece of itself somewhere else */
        n = 1 + pick(r, sizeof copy - 1);
        n = n < len - at ? n : len - at;
        memcpy(copy, b + at, n);
        return splice(b, len, to, small % 2 ? n : 0, copy, n);
    case 6: { /* a piece of another seed */
        size_t from = pick(r, other->data.len + 1), most = other->data.len - from;
        n = n * (1 + small) < most ? n * (1 + small) : most;
        return splice(b, len, at, byte % 2 ? n : 0, n ? other->data.data + from : NULL, n);
    }
    case 7: return at; /* cut off */
    default: { /* another digit */
        for (size_t i = at; i < len; i++)
            if (b[i] >= '0' && b[i] <= '9') {
                b[i] = (uint8_t)('0' + byte % 10);
                break;
            }
        return len;
    }
    }
}

static void run_case(long n, int keep)
{
    static uint8_t b[MAX_SIZE];
    char name[40];
    ns_rng r;
    ns_rng_init(&r, (uint64_t)n);
    const struct seed *s = &seeds[pick(&r, (size_t)n_seeds)];
    size_t len = s->data.len;
    if (len)
        memcpy(b, s->data.data, len);
    for (size_t k = 1 + pick(&r, 5); k > 0; k--)
        len = mutate(b, len, &r);
    snprintf(running, sizeof running, "replay: failed in case %ld, a mutation of %.200s\n", n, s->name);
    snprintf(name, sizeof name, "case-%ld", n);
    if (keep) {
        FILE *f = fopen(name, "wb");
        if (!f || fwrite(b, 1, len, f) != len || fclose(f) != 0)
            perror(name);
    }
    run(b, len);
}

int main(int argc, char **argv)
{
    if (argc < 3 || read_corpus(argv[1]) != 0) {
        fprintf(stderr, "usage: %s CORPUS CASES [CASE]\n", argv[0]);
        return 2;
    }
    long cases = atol(argv[2]);
    signal(SIGABRT, on_signal);
    signal(SIGILL, on_signal);
    signal(SIGTRAP, on_signal);
    signal(SIGSEGV, on_signal);
    if (argc > 3) {
        run_case(atol(argv[3]), 1);
        return 0;
    }
    for (int i = 0; i < n_seeds; i++) {
        snprintf(running, sizeof running, "replay: failed in %.200s\n", seeds[i].name);
        run((const uint8_t *)seeds[i].data.data, seeds[i].data.len);
    }
    run(NULL, 0);
    for (long n = 0; n < cases; n++)
        run_case(n, 0);
    printf("%d seeds and %ld mutations\n", n_seeds, cases);
    for (int i = 0; i < n_seeds; i++)
        ns_buf_release(&seeds[i].data);
    return 0;
}
