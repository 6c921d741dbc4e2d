//! A look at DER's lengths before anything is read by them.
//!
//! The decoder that the tickets' formats come with adds up lengths as it finds them, and strangers write them. What passes here
//! is one element, all parts of which lie within the parts that hold them.
//!
//! Deliberately absent: what the parts mean, tags of several bytes, lengths of three bytes and more, which no ticket needs.

/// How deep parts may lie within each other; those of a ticket do to 8.
const DEPTH_MAX: usize = 16;
/// The tag's bit that says: the contents are elements.
const CONSTRUCTED: u8 = 0x20;
/// Tags that go on in another byte.
const TAG_LONG: u8 = 0x1f;

/// The element that `bytes` begin with, if it is whole. What follows it is left out.
pub fn element(bytes: &[u8]) -> Option<&[u8]> {
    let rest = skip(bytes, DEPTH_MAX)?;
    Some(&bytes[..bytes.len() - rest.len()])
}

/// Checks the first element, and returns what follows it.
fn skip(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    let (&tag, rest) = bytes.split_first()?;
    let (len, rest) = length(rest)?;
    let (mut contents, rest) = rest.split_at_checked(len)?;
    if tag & TAG_LONG == TAG_LONG {
        return None;
    }
    while tag & CONSTRUCTED != 0 && !contents.is_empty() {
        contents = skip(contents, depth.checked_sub(1)?)?;
    }
    Some(rest)
}

/// A length of the form that DER has for it, the shortest.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match *bytes {
        [len @ 0..=0x7f, ref rest @ ..] => Some((len.into(), rest)),
        [0x81, len @ 0x80..=0xff, ref rest @ ..] => Some((len.into(), rest)),
        [0x82, high @ 1..=0xff, low, ref rest @ ..] => Some((u16::from_be_bytes([high, low]).into(), rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::element;

    #[test]
    fn one_whole_element_passes_and_what_follows_is_left_out() {
        let whole = [0x30, 5, 0xa0, 3, 2, 1, 7];
        assert_eq!(element(&whole), Some(&whole[..]));
        assert_eq!(element(&[&whole[..], &[0; 3]].concat()), Some(&whole[..]));
        let long = [&[4, 0x81, 0x80][..], &[0xff; 0x80]].concat();
        assert_eq!(element(&long), Some(&long[..]), "contents of a string are not looked at");
        let longer = [&[4, 0x82, 1, 0][..], &[0xff; 0x100]].concat();
        assert_eq!(element(&longer), Some(&longer[..]));
        assert_eq!(element(&[0x30, 0]), Some(&[0x30, 0][..]));
    }

    #[test]
    fn nothing_passes_that_reaches_beyond_what_holds_it() {
        let bad: [&[u8]; 12] = [
            &[],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 2, 2, 1, 7],
            &[0x30, 3, 0xa0, 2, 2, 0],
            &[0x1f, 1, 0, 0],
            &[2, 0x81, 1, 7],
            &[2, 0x82, 0, 0x80],
            &[4, 0x83, 1, 0, 0],
            &[0x30, 4, 2, 0x88, 0xff, 0xff],
            &[0x61, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ];
        for bytes in bad {
            assert_eq!(element(bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn depth_has_an_end() {
        let nested =
            |levels: u8| (0..levels).flat_map(|level| [0x30, 2 * (levels - level - 1)]).collect::<Vec<_>>();
        assert!(element(&nested(17)).is_some());
        assert_eq!(element(&nested(18)), None);
    }
}
