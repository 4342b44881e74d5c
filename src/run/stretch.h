/* A stretch: pending tokens that a lone session computes in one go, counted from 0: a prompt (or all of the past, at a new size), or one
 * drawn token, with what closes a thought behind it. Here is the one rule of how it may be cut into pieces, so that other sequences are
 * computed in between and every bit stays what it is alone.
 *   Most of a step does not care how many tokens come at once. The Mamba scan does: it goes in chunks of NS_SCAN_CHUNK counted from the
 *   beginning of the piece, and a piece of one token goes another way (the recurrence), which rounds differently. Alone, pieces begin at
 *   multiples of NS_STEP_TOKENS, themselves multiples of the chunk.
 * So: pieces end at multiples of NS_SCAN_CHUNK, or at the end; and the last token is a piece of its own exactly where it is alone, which
 * is when n = 1 modulo NS_STEP_TOKENS. No other piece has one token. A prefix that was kept (run/prefix.h) is a piece that was read before. */
#ifndef NS_RUN_STRETCH_H
#define NS_RUN_STRETCH_H

/* The last place where a stretch of n tokens may be cut; 0: nowhere. A longer one may be cut there too. */
int ns_stretch_last_cut(int n);
/* Tokens of the next piece when `at` of n are computed: about `most` at most (65 where 64 would leave a single token over), 0 when it needs more
 * than that. `most` is at most NS_STEP_TOKENS; with as many there is always a piece. */
int ns_stretch_piece(int at, int n, int most);
#endif
