/* Logits of a GGUF file as llama.cpp computes them, for tools/check_gguf.sh: llama_logits MODEL.gguf IDS.txt OUT. IDS.txt has token ids, OUT gets F32
 * [tokens, vocabulary]. One batch, one thread, F32 caches, no flash attention. Links libllama. */
#include <stdio.h>
#include <stdlib.h>

#include <llama.h>

enum { MOST = 4096 };

static int read_ids(const char *path, int *ids)
{
    FILE *f = fopen(path, "r");
    int n = 0;
    while (f && n < MOST && fscanf(f, "%d", &ids[n]) == 1)
        n++;
    if (f)
        fclose(f);
    return n;
}

static struct llama_context *open_model(const char *path, int n, struct llama_model **m)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = p.n_batch = p.n_ubatch = n < 64 ? 64 : (unsigned)n;
    p.n_threads = p.n_threads_batch = 1;
    p.type_k = p.type_v = GGML_TYPE_F32;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    *m = llama_model_load_from_file(path, llama_model_default_params());
    return *m ? llama_init_from_model(*m, p) : NULL;
}

int main(int argc, char **argv)
{
    static int ids[MOST];
    struct llama_model *m;
    if (argc != 4)
        return 2;
    const int n = read_ids(argv[2], ids);
    llama_backend_init();
    struct llama_context *c = n > 0 ? open_model(argv[1], n, &m) : NULL;
    if (!c)
        return 1;
    struct llama_batch b = llama_batch_init(n, 0, 1);
    for (b.n_tokens = 0; b.n_tokens < n; b.n_tokens++) {
        const int i = b.n_tokens;
        b.token[i] = ids[i];
        b.pos[i] = i;
        b.n_seq_id[i] = 1;
        b.seq_id[i][0] = 0;
        b.logits[i] = 1;
    }
    FILE *out = llama_decode(c, b) == 0 ? fopen(argv[3], "wb") : NULL;
    if (!out)
        return 1;
    const size_t vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(m));
    for (int i = 0; i < n; i++)
        if (fwrite(llama_get_logits_ith(c, i), sizeof(float), vocab, out) != vocab)
            return 1;
    return fclose(out) == 0 ? 0 : 1;
}
