/* Bytes that can be told apart, as apps/rxperf/src/payload.rs has them: an endless pattern by a seed, and a digest of a stream.
 *
 * A request's bytes are drawn from a seed of the call, a reply's from the digest of the whole request, so that a byte that is lost,
 * doubled or moved, on the way there or back, shows in the reply.
 */
#include <stdint.h>
#include <string.h>

struct digest {
    uint64_t state, len;
    unsigned char held[8];
};

static inline uint64_t pattern_word(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The bytes from `position` on, a multiple of eight. */
static inline void pattern(uint64_t seed, uint64_t position, unsigned char *out, size_t len)
{
    uint64_t word, index = position / 8;
    for (; len >= 8; len -= 8, out += 8) {
        word = pattern_word(seed, index++);
        memcpy(out, &word, 8);
    }
    word = pattern_word(seed, index);
    memcpy(out, &word, len);
}

static inline void digest_word(struct digest *digest, const unsigned char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, 8);
    word ^= digest->state << 5 | digest->state >> 59;
    digest->state = word * 0x9e3779b97f4a7c15u;
}

static inline void digest_add(struct digest *digest, const unsigned char *bytes, size_t len)
{
    for (; len > 0 && digest->len % 8; len--) {
        digest->held[digest->len++ % 8] = *bytes++;
        if (digest->len % 8 == 0)
            digest_word(digest, digest->held);
    }
    digest->len += len;
    for (; len >= 8; len -= 8, bytes += 8)
        digest_word(digest, bytes);
    memcpy(digest->held, bytes, len);
}

static inline uint64_t digest_value(struct digest digest)
{
    memset(digest.held + digest.len % 8, 0, 8 - digest.len % 8);
    digest_word(&digest, digest.held);
    memcpy(digest.held, &digest.len, 8);
    digest_word(&digest, digest.held);
    return digest.state ^ digest.state >> 32;
}
