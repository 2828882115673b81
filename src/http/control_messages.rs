//! The answer with control messages, written directly as JSON.
//!
//! It consists almost entirely of packets, and contains each of them twice: in the draft's list and by epoch. Here each packet
//! is encoded as Base64 once, and no text is searched for characters to escape, since Base64 has none.

use actors::ControlMessages;

use crate::api::text::push_base64;

/// Room for an epoch besides its packets: names and numbers.
const EPOCH_BYTES: usize = 100;

/// The size of the packets in an answer, in bytes.
pub(super) fn packet_bytes(found: &ControlMessages) -> usize {
    let packets = found.epochs.iter().flat_map(|entry| entry.proposals.iter().chain([&entry.commit]));
    packets.map(|packet| packet.len()).sum()
}

/// The JSON of a [`ControlMessagesBody`](crate::api::groups::ControlMessagesBody).
pub(super) fn encode(found: &ControlMessages) -> Vec<u8> {
    let packets = || found.epochs.iter().flat_map(|entry| entry.proposals.iter().chain([&entry.commit]));
    let packet_bytes: usize = packets().map(|packet| packet.len().div_ceil(3) * 4 + 3).sum();
    let mut json = Vec::with_capacity(2 * packet_bytes + EPOCH_BYTES * (found.epochs.len() + 1));
    // The position of each packet's text, quotes included.
    let mut places = Vec::new();
    json.extend_from_slice(br#"{"messages":["#);
    for packet in packets() {
        separate(&mut json);
        let start = json.len();
        json.push(b'"');
        push_base64(packet, &mut json);
        json.push(b'"');
        places.push(start..json.len());
    }
    let mut places = places.into_iter();
    json.extend_from_slice(br#"],"epochs":["#);
    for entry in &found.epochs {
        separate(&mut json);
        number(&mut json, br#"{"epochId":"#, entry.epoch.0);
        number(&mut json, br#","timestamp":"#, entry.timestamp.0);
        json.extend_from_slice(br#","proposals":["#);
        for place in places.by_ref().take(entry.proposals.len()) {
            separate(&mut json);
            json.extend_from_within(place);
        }
        json.extend_from_slice(br#"],"commit":"#);
        if let Some(place) = places.next() {
            json.extend_from_within(place);
        }
        json.push(b'}');
    }
    number(&mut json, br#"],"currentEpochId":"#, found.current.0);
    if let Some(next) = found.next {
        number(&mut json, br#","nextEpochId":"#, next.0);
    }
    json.push(b'}');
    json
}

/// A comma, unless a list has just begun.
fn separate(json: &mut Vec<u8>) {
    if json.last() != Some(&b'[') {
        json.push(b',');
    }
}

fn number(json: &mut Vec<u8>, name: &[u8], number: u64) {
    json.extend_from_slice(name);
    json.extend_from_slice(number.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use actors::{Epoch, EpochEntry, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::api::{
        groups::{ControlMessagesBody, EpochMessages},
        text::Base64,
    };

    fn entries() -> impl Strategy<Value = Vec<EpochEntry>> {
        let packet = || prop::collection::vec(any::<u8>(), 0..20);
        let entry = (any::<u64>(), any::<u64>(), prop::collection::vec(packet(), 0..3), packet());
        let entry = entry.prop_map(|(epoch, timestamp, proposals, commit)| EpochEntry {
            epoch: Epoch(epoch),
            timestamp: Timestamp(timestamp),
            proposals,
            commit,
        });
        prop::collection::vec(entry, 0..4)
    }

    proptest! {
        #[test]
        fn it_is_what_the_api_says(
            epochs in entries(),
            current in any::<u64>(),
            next in any::<Option<u64>>(),
        ) {
            let epochs = epochs.into_iter().map(std::sync::Arc::new).collect();
            let found = ControlMessages { epochs, current: Epoch(current), next: next.map(Epoch) };
            let by_epoch: Vec<_> = found.epochs.iter().map(|entry| EpochMessages {
                epoch_id: entry.epoch,
                timestamp: entry.timestamp,
                proposals: entry.proposals.iter().cloned().map(Base64).collect(),
                commit: Base64(entry.commit.clone()),
            }).collect();
            let body = ControlMessagesBody {
                messages: by_epoch
                    .iter()
                    .flat_map(|epoch| epoch.proposals.iter().chain([&epoch.commit]).cloned())
                    .collect(),
                epochs: by_epoch,
                current_epoch_id: found.current,
                next_epoch_id: found.next,
            };
            prop_assert_eq!(encode(&found), serde_json::to_vec(&body).unwrap());
        }
    }
}
