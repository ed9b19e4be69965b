"""Which partition a key belongs to: murmur2 as Kafka's own clients compute it, so that all clients agree."""

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Return the unsigned 32-bit murmur2 hash with Kafka's seed (source: Apache Kafka's documented default partitioner)."""
    length = len(data)
    digest = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        digest = (digest * _M & _MASK) ^ word
    if rest := data[whole:]:
        digest = (digest ^ int.from_bytes(rest, "little")) * _M & _MASK
    digest = (digest ^ digest >> 13) * _M & _MASK
    return digest ^ digest >> 15


def partition_for(key: bytes, count: int) -> int:
    """Return the partition of `key` among `count` partitions, as Kafka's default partitioner does."""
    return (murmur2(key) & 0x7FFFFFFF) % count
