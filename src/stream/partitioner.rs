//! Which partition a key belongs to.
//!
//! Owns: the hash that Kafka's Java producer uses for keyed records, so that a Java program that writes the
//! same key to a topic with as many partitions writes to the same partition.
//! Invariant: a pure function of key bytes and partition count.

use super::record::Partition;

/// The partition of `key` among `count` partitions: `murmur2(key) & 0x7fffffff % count`, as in
/// Kafka's `BuiltInPartitioner.partitionForKey`.
pub fn partition_for(key: &[u8], count: u32) -> Partition {
    Partition((murmur2(key) & 0x7fff_ffff) % count.max(1))
}

/// MurmurHash2, 32 bits, with the seed of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash: u32 = 0x9747_b28c ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_the_java_client_does() {
        for (text, hash) in [
            ("21", -973932308i32),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn stays_within_the_count() {
        for count in [1, 2, 7, 64] {
            for n in 0..500u32 {
                assert!(partition_for(&n.to_be_bytes(), count).0 < count);
            }
        }
    }
}
