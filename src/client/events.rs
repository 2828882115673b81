//! Reading event streams.

use std::time::Duration;

use actors::GroupId;
use reqwest::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::{
    GatewayClient, RequestError,
    requests::{Requests, is_problem, is_success, refusal, target_of, unexpected},
};
use crate::api::{
    Endpoint, Nothing,
    activity::{ActivitySample, WatchActivity},
    events::{EVENT_STREAM, EventData, EventQuery, StreamApplicationEvents, StreamGroupEvents},
    paths::NoMembers,
    text::EventIdText,
};

/// The silence after which a stream counts as lost; the gateway writes something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The time limit of a whole stream: as good as none.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 64 << 20;

/// An open event stream.
#[derive(Debug)]
pub struct EventReader {
    blocks: BlockReader,
    last_id: Option<EventIdText>,
}

impl GatewayClient {
    /// Opens the stream of the events of the application.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn application_events(&self, query: &EventQuery) -> Result<EventReader, RequestError> {
        let path = self.at_application();
        let blocks = BlockReader::open::<StreamApplicationEvents>(&self.requests, &path, query).await?;
        Ok(EventReader { blocks, last_id: query.after })
    }

    /// Opens the stream of the events of a group.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn group_events(
        &self,
        group: &GroupId,
        query: &EventQuery,
    ) -> Result<EventReader, RequestError> {
        let path = self.at_group(group);
        let blocks = BlockReader::open::<StreamGroupEvents>(&self.requests, &path, query).await?;
        Ok(EventReader { blocks, last_id: query.after })
    }
}

impl EventReader {
    /// The id with which to go on after the events that were read; `None` before the first id.
    pub fn last_event_id(&self) -> Option<EventIdText> {
        self.last_id
    }

    /// The next event, once there is one; `None` at the end of the stream, after which the caller opens a new one, with
    /// [`EventReader::last_event_id`]. Kinds of events that this version does not know are left out.
    ///
    /// # Errors
    /// [`RequestError::Transport`] when the connection is lost, [`RequestError::Unexpected`] when the stream is not one of a
    /// gateway.
    pub async fn next(&mut self) -> Result<Option<EventData>, RequestError> {
        while let Some(StreamBlock { id, kind, data }) = self.blocks.next().await? {
            if let Some(id) = id {
                self.last_id = Some(id.parse().map_err(|error| unexpected(200, error))?);
            }
            if let Some(event) = event(&kind, &data)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

/// An open stream of samples of a gateway's activity.
#[derive(Debug)]
pub struct ActivityReader(BlockReader);

impl ActivityReader {
    pub(super) async fn open(requests: &Requests) -> Result<Self, RequestError> {
        Ok(Self(BlockReader::open::<WatchActivity>(requests, &NoMembers, &Nothing {}).await?))
    }

    /// The next sample, once there is one; `None` at the end of the stream, after which the caller opens a new one.
    ///
    /// # Errors
    /// As [`EventReader::next`].
    pub async fn next(&mut self) -> Result<Option<ActivitySample>, RequestError> {
        while let Some(StreamBlock { kind, data, .. }) = self.0.next().await? {
            if kind == "sample" {
                return read(&data).map(Some);
            }
        }
        Ok(None)
    }
}

/// The blocks of an open stream (WHATWG HTML, *Server-sent events*).
#[derive(Debug)]
struct BlockReader {
    response: reqwest::Response,
    received: Vec<u8>,
    /// The bytes at the beginning of `received` that end no line.
    searched: usize,
    /// The block that has not ended.
    block: StreamBlock,
}

/// The fields of a block.
#[derive(Debug, Default)]
struct StreamBlock {
    id: Option<String>,
    kind: String,
    data: String,
}

impl BlockReader {
    async fn open<E: Endpoint<Body = Nothing>>(
        requests: &Requests,
        path: &E::Path,
        query: &E::Query,
    ) -> Result<Self, RequestError> {
        let request = requests.request::<E>(&target_of::<E>(path, query)?).timeout(STREAM_TIMEOUT);
        let response = request.send().await?;
        let status = response.status().as_u16();
        if !is_success::<E>(&response) {
            let is_problem = is_problem(&response);
            return Err(refusal(status, is_problem, &response.bytes().await?));
        }
        if response.headers().get(CONTENT_TYPE).is_none_or(|media_type| media_type != EVENT_STREAM) {
            return Err(unexpected(status, "not an event stream"));
        }
        Ok(Self { response, received: Vec::new(), searched: 0, block: StreamBlock::default() })
    }

    /// The next block, once there is one; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<StreamBlock>, RequestError> {
        loop {
            while let Some(end) = self.received.iter().skip(self.searched).position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=self.searched + end).collect();
                self.searched = 0;
                let line = String::from_utf8(line).map_err(|error| unexpected(200, error))?;
                let line = line.trim_end_matches(['\r', '\n']);
                if line.is_empty() {
                    return Ok(Some(std::mem::take(&mut self.block)));
                }
                self.block.take_line(line);
            }
            self.searched = self.received.len();
            if self.received.len() > LINE_BYTES_MAX {
                return Err(unexpected(200, "a line of the stream has no end"));
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            match chunk.map_err(|_| unexpected(200, "the stream is silent"))?? {
                Some(chunk) => self.received.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl StreamBlock {
    fn take_line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // A comment, or a field that this version does not know.
            _ => {}
        }
    }
}

fn event(kind: &str, data: &str) -> Result<Option<EventData>, RequestError> {
    Ok(Some(match kind {
        "proposal" => EventData::Proposal(read(data)?),
        "epoch" => EventData::Epoch(read(data)?),
        "group" => EventData::Group(read(data)?),
        "welcome" => EventData::Welcome(read(data)?),
        "key-packages" => EventData::KeyPackages(read(data)?),
        "epoch-reported" => EventData::EpochReported(read(data)?),
        "reset" => EventData::Reset(read(data)?),
        _ => return Ok(None),
    }))
}

fn read<T: DeserializeOwned>(data: &str) -> Result<T, RequestError> {
    serde_json::from_str(data).map_err(|error| unexpected(200, error))
}
