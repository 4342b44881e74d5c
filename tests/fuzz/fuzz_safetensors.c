/* Any bytes as a safetensors file: refused, or every byte of every tensor may be read. */
#include <stdlib.h>

#include "store/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ns_st st;
    ns_err e = { 0 };
    volatile uint8_t sum = 0;
    size_t bytes = 0;
    if (ns_st_parse(data, size, "fuzz", &st, &e) != 0) {
        if (e.code == NS_OK || !e.msg[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < st.n_tensors; i++) {
        const ns_tensor *t = &st.tensors[i];
        for (size_t j = 0; j < t->bytes; j++)
            sum = (uint8_t)(sum + t->data[j]);
        bytes += t->bytes;
    }
    if (bytes > size)
        abort();
    ns_st_release(&st);
    return 0;
}
