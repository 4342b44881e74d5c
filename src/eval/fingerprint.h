/* Is it the same checkpoint? */
#ifndef NS_EVAL_FINGERPRINT_H
#define NS_EVAL_FINGERPRINT_H
#include "base/err.h"

/* A hash of the folder's config.json, nest.json (or the file that stands in for it) and *.safetensors: name, size, tensor header and 64
 * pieces of the data spread over each file, so that training on, which changes all weights, changes it. 16 hexadecimal digits. */
int ns_fingerprint(const char *dir, const char *nest_path, char out[17], ns_err *e);
#endif
