/* Shell patterns over module names: `*` any run (dots included), `?` one byte, `[abc]`, `[a-c]`, `[!a]`; a backslash is itself
 * (Python's fnmatch, which ModelOpt's readers use). Time is bounded by the product of the lengths. */
#ifndef NS_ARCH_GLOB_H
#define NS_ARCH_GLOB_H
#include <stdbool.h>

bool ns_glob_match(const char *pattern, const char *text);
bool ns_glob_has_magic(const char *pattern);
#endif
