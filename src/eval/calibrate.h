/* Calibration: the largest magnitudes that activations reach on a text, for the scales that `nestar quantize --calib` writes. A step's
 * inputs are looked at as they pass and not kept, so memory is that of running the model, whatever it is stored as. */
#ifndef NS_EVAL_CALIBRATE_H
#define NS_EVAL_CALIBRATE_H
#include "run/engine.h"
#include "store/writer.h"

typedef struct ns_calib ns_calib;

typedef struct ns_calib_report {
    int64_t tokens;     /* of the text, once however many sizes ran */
    int modules;        /* matrices that got an input_amax */
    int kv_layers;      /* attention layers that got the output_amax of their keys and values */
    int unreached;      /* experts to which no token was sent */
    int absent;         /* matrices that none of the sizes has: nothing is written of them */
} ns_calib_report;

/* Statistics are the largest over all of the sizes (as --size writes them). Documents may have up to `context` tokens. */
ns_calib *ns_calib_new(const ns_engine *en, const char *const *sizes, int n_sizes, int context, ns_err *e);
void ns_calib_free(ns_calib *k);
/* Runs a document from an empty state, at every size. */
int ns_calib_add(ns_calib *k, const int *ids, int n, ns_err *e);

/* F32 scalars MODULE.input_amax, and k_proj's and v_proj's output_amax (keys and values as they are stored, biases added). An expert that
 * saw no token, or only zeros, gets the largest of its layer's, and is named in the log. `report` may be NULL. */
int ns_calib_write(const ns_calib *k, const ns_st_meta *meta, size_t n_meta, const char *path, ns_calib_report *report, ns_err *e);
#endif
