//! The mask of RFC 6455 section 5.3.

/// Applies the mask, which also removes it, and rotates it so that it fits the byte that follows.
pub(crate) fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_at_a_time_is_the_same_as_all_at_once() {
        let plain: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mask = [0x12, 0x34, 0x56, 0x78];
        let expected: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        for step in 1..40 {
            let (mut bytes, mut turning) = (plain.clone(), mask);
            for piece in bytes.chunks_mut(step) {
                unmask(piece, &mut turning);
            }
            assert_eq!(bytes, expected, "in steps of {step}");
        }
    }
}
