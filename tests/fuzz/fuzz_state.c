/* Any bytes as a saved state: refused, or taken whole, and then saving it again gives the same bytes. The last byte chooses which size
 * loads it; it does not belong to the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "model/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTEXT = 6, SIZES = 4 };

static const char config[] =
    "{\"model_type\": \"nemotron_h\", \"hybrid_override_pattern\": \"M*M-\", \"num_hidden_layers\": 4, \"hidden_size\": 4, \"vocab_size\": 9,"
    " \"intermediate_size\": 4, \"mamba_num_heads\": 2, \"n_groups\": 1, \"mamba_head_dim\": 2, \"ssm_state_size\": 2, \"conv_kernel\": 3,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 2, \"layer_norm_epsilon\": 1e-5}";

static ns_state *states[SIZES]; /* all of it, fewer heads, without the last Mamba layer, all of it with an FP8 cache */

static void check(int ok)
{
    if (!ok)
        abort();
}

static void set_up(void)
{
    ns_err e = { 0 };
    json_t *c = ns_json_parse(config, sizeof config - 1, false, "config", &e);
    ns_arch *a = ns_arch_parse(c, "config", &e);
    json_decref(c);
    for (int i = 0; a && i < SIZES; i++) {
        ns_cut cut;
        check(ns_cut_full(a, &cut, &e) == 0);
        if (i == 1)
            check(ns_cut_set(a, &cut, NS_AXIS_MAMBA_HEADS, 1));
        if (i == 2)
            cut.layer[2].keep = false;
        states[i] = ns_state_new(a, &cut, i == 3 ? NS_F8_E4M3 : NS_F32, CONTEXT, &e);
        check(states[i] != NULL);
        ns_cut_release(&cut);
    }
    check(a != NULL);
}

static void same_again(const ns_state *s, const int *ids, const void *extra, size_t n, const uint8_t *data, size_t size)
{
    char path[64];
    ns_err e = { 0 };
    ns_buf b = { 0 };
    snprintf(path, sizeof path, "/tmp/nestar-fuzz-state-%d", (int)getpid());
    check(ns_state_save_with(s, ids, extra, n, path, &e) == 0 && ns_file_read(path, 1 << 24, &b, &e) == 0);
    check(b.len == size && memcmp(b.data, data, size) == 0);
    unlink(path);
    ns_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    ns_err e = { 0 };
    int *ids, fd = memfd_create("state", 0);
    void *extra;
    size_t n;
    if (!states[0])
        set_up();
    if (size == 0 || fd < 0) {
        close(fd);
        return 0;
    }
    ns_state *s = states[data[size - 1] % SIZES];
    check(write(fd, data, size - 1) == (ssize_t)(size - 1));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (ns_state_load_with(s, path, &ids, &extra, &n, &e) == 0) {
        check(s->len >= 0 && s->len <= CONTEXT && ids);
        for (int i = 0; i < s->len; i++)
            check(ids[i] >= 0 && ids[i] < s->arch->vocab_size);
        same_again(s, ids, extra, n, data, size - 1);
    } else {
        check(e.code != NS_OK && e.msg[0] && !ids && !extra);
    }
    free(ids);
    free(extra);
    close(fd);
    return 0;
}
