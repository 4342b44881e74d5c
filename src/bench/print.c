#include "bench/bench.h"

static double num(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void print_sizes(const json_t *report, FILE *out)
{
    size_t i;
    const json_t *row, *roofs = json_object_get(report, "roofs"), *machine = json_object_get(report, "machine");
    fprintf(out, "kernels %s, %d threads; reads %.1f GB/s (random expert-sized blocks of these weights), F32 gemm %.0f GFLOP/s\n\n",
            json_string_value(json_object_get(machine, "kernels")), (int)num(machine, "threads"), num(roofs, "read_gb_per_second"),
            num(roofs, "f32_gemm_gflops"));
    fprintf(out, "%-12s %9s | %8s %8s %9s | %4s %8s %8s %9s %9s | %8s\n", "size", "active GB", "prefill", "GFLOP/s", "x gemm", "seqs", "decode",
            "ms/step", "GB/step", "bandwidth", "peak RSS");
    fprintf(out, "%-12s %9s | %8s %8s %9s | %4s %8s %8s %9s %9s | %8s\n", "", "", "tok/s", "", "", "", "tok/s", "", "", "share", "GiB");
    json_array_foreach(json_object_get(report, "sizes"), i, row)
        fprintf(out, "%-12s %9.2f | %8.2f %8.1f %8.2fx | %4d %8.2f %8.2f %9.3f %8.1f%% | %8.2f\n",
                json_string_value(json_object_get(row, "size")), num(row, "active_bytes") / 1e9, num(row, "prefill_tokens_per_second"),
                num(row, "prefill_gflops"), num(row, "prefill_share_of_f32_gemm"), (int)num(row, "decode_sequences"),
                num(row, "decode_tokens_per_second"), num(row, "decode_step_ms"), num(row, "decode_step_bytes") / 1e9,
                100.0 * num(row, "decode_share_of_bandwidth"), num(row, "peak_rss_bytes") / 1073741824.0);
    const json_t *sw = json_object_get(report, "switch");
    if (sw)
        fprintf(out, "\nlive change %s <-> %s after %d tokens, cache kept: median %.3f ms, worst %.3f ms\n",
                json_string_value(json_object_get(sw, "from")), json_string_value(json_object_get(sw, "to")), (int)num(sw, "depth"),
                num(sw, "median_ms"), num(sw, "worst_ms"));
    const json_t *mix = json_object_get(report, "mix");
    if (mix)
        fprintf(out, "\n%d sizes, %d sequences each: %.2f ms in one step, %.2f ms size by size: %.2f times\n",
                (int)json_array_size(json_object_get(mix, "sizes")), (int)num(mix, "sequences_each"), num(mix, "together_ms"),
                num(mix, "apart_ms"), num(mix, "ratio"));
}

static void print_ops(const json_t *ops, FILE *out)
{
    size_t i;
    const json_t *row;
    fprintf(out, "%-28s %12s %12s %12s\n", "kernel", "us", "GB/s", "GFLOP/s");
    json_array_foreach(ops, i, row)
        fprintf(out, "%-28s %12.2f %12.2f %12.2f\n", json_string_value(json_object_get(row, "name")), num(row, "us"), num(row, "gb_per_second"),
                num(row, "gflops"));
}

void ns_bench_print(const json_t *report, FILE *out)
{
    if (json_object_get(report, "sizes"))
        print_sizes(report, out);
    if (json_object_get(report, "ops"))
        print_ops(json_object_get(report, "ops"), out);
}
