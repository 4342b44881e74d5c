#include "run/stretch.h"

#include "model/model.h"

static bool ends_alone(int n)
{
    return n % NS_STEP_TOKENS == 1;
}

int ns_stretch_last_cut(int n)
{
    int cut = (n - 1) / NS_SCAN_CHUNK * NS_SCAN_CHUNK;
    return n - cut == 1 && cut > 0 && !ends_alone(n) ? cut - NS_SCAN_CHUNK : cut;
}

int ns_stretch_piece(int at, int n, int most)
{
    int last = ns_stretch_last_cut(n), left = n - at;
    if (at >= last) /* the tail, up to 65 tokens, stays whole */
        return left <= most || (left == NS_SCAN_CHUNK + 1 && most == NS_SCAN_CHUNK) ? left : 0;
    if (left <= most && !ends_alone(n))
        return left;
    int to = at + most / NS_SCAN_CHUNK * NS_SCAN_CHUNK;
    return (to < last ? to : last) - at;
}
