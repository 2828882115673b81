//! Inputs that are lists of parts, each with its kind in one byte and its length in two.

/// Takes the next part off an input.
pub(crate) fn next_part(input: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
    let (head, rest) = input.split_first_chunk::<3>()?;
    let [kind, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    let (part, rest) = rest.split_at(length);
    *input = rest;
    Some((kind, part.to_vec()))
}
