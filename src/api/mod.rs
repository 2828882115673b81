//! The HTTP API as types: one file per resource, one [`Endpoint`] per request of the contract.
//!
//! The server, the client and the OpenAPI document are all made from these types, so they cannot disagree.

pub mod activity;
pub mod applications;
pub mod audit;
pub mod backups;
pub mod clients;
pub mod deliveries;
pub mod events;
pub mod external_senders;
pub mod federation;
pub mod groups;
pub mod joining;
pub mod key_packages;
pub(crate) mod list;
pub mod operated_clients;
pub mod operated_groups;
pub mod operator;
pub mod paths;
pub mod percent;
pub mod problem;
pub mod reports;
pub mod text;
pub(crate) mod whole;

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use self::{paths::PathMembers, problem::ProblemKind};

/// One request of the API: its path, its body and its answer.
pub trait Endpoint: Sized + 'static {
    /// Its name in the OpenAPI document (`operationId`), unique.
    const NAME: &'static str;
    /// The HTTP method.
    const METHOD: Method;
    /// The path, its members in braces: `/apps/{appId}/clients`.
    const PATH: &'static str;
    /// The permission that a request needs.
    const ACCESS: Access;
    /// The draft's section, by title.
    const SECTION: &'static str;
    /// A summary in one line.
    const SUMMARY: &'static str;
    /// Its purpose and the meaning of its answer, for people who write a client.
    const DESCRIPTION: &'static str;
    /// The departure from the draft's text, if any, and its reason.
    const DEVIATION: Option<&'static str> = None;
    /// The statuses of success, the usual one first.
    const SUCCESS: &'static [Success] = &[Success::Ok];
    /// The media type of a success with a body.
    const MEDIA_TYPE: &'static str = "application/json";
    /// Whether an event stream continues after the event that `Last-Event-ID` names.
    const RESUMES: bool = false;
    /// Whether an answer carries an entity tag and `If-None-Match` is honoured (RFC 9110 §8.8.3, §13.1.2).
    const HAS_ENTITY_TAG: bool = false;
    /// The problems of this request, in addition to those of every request.
    const PROBLEMS: &'static [ProblemKind] = &[];
    /// The members of the path.
    type Path: PathMembers;
    /// The query string; [`Nothing`] refuses one.
    type Query: Serialize + DeserializeOwned + IntoParams;
    /// The body, a JSON object; [`Nothing`] when there is none.
    type Body: Body;
    /// The body of a success; [`Nothing`] with 204.
    type Response: Serialize + DeserializeOwned + ToSchema;
}

/// The target of a request: path and query, percent-encoded.
///
/// # Errors
/// None is known: every query of the API has a text form.
pub fn target<E: Endpoint>(path: &E::Path, query: &E::Query) -> Result<String, serde_urlencoded::ser::Error> {
    let path = paths::fill(E::PATH, path);
    let query = serde_urlencoded::to_string(query)?;
    Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
}

/// The methods that the API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates by name; a repetition is a conflict.
    Post,
    /// Creates by content; a repetition gives the first answer.
    Put,
    /// Changes.
    Patch,
    /// Deletes.
    Delete,
}

impl Method {
    /// The method as it is written in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// The permission that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone: tokens are ignored.
    Public,
    /// Any token of the application.
    Read,
    /// A `read-write` token of the application.
    ReadWrite,
}

/// A status of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// 200.
    Ok,
    /// 201.
    Created,
    /// 202.
    Accepted,
    /// 204: there is no body.
    NoContent,
}

impl Success {
    /// The status code.
    pub const fn status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Created => 201,
            Self::Accepted => 202,
            Self::NoContent => 204,
        }
    }
}

/// The body of a request.
pub trait Body: Serialize + DeserializeOwned + ToSchema + Send + 'static {
    /// Whether the request has a body.
    const IS_SENT: bool = true;
    /// Its greatest size, in bytes, if that is less than the gateway's limit for all requests.
    const BYTES_MAX: usize = usize::MAX;
}

/// No query, no body, no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl Body for Nothing {
    const IS_SENT: bool = false;
}

/// The number of items in one page of a list: 1 to 1000, 100 by default (*Conventions*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u64", into = "u64")]
#[schema(value_type = u16, minimum = 1, maximum = 1000, default = 100)]
pub struct Limit(u16);

impl Limit {
    /// The most items in one page.
    pub const MAX: u16 = 1000;

    /// As a count.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u64> for Limit {
    type Error = &'static str;

    fn try_from(count: u64) -> Result<Self, Self::Error> {
        u16::try_from(count)
            .ok()
            .filter(|count| (1..=Self::MAX).contains(count))
            .map(Self)
            .ok_or("must be from 1 to 1000")
    }
}

impl From<Limit> for u64 {
    fn from(limit: Limit) -> Self {
        Self::from(limit.0)
    }
}

/// The time for which an answer that would be empty is held, in milliseconds: 0 to 60,000, 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u64", into = "u64")]
#[schema(value_type = u16, minimum = 0, maximum = 60000, default = 0)]
pub struct WaitMs(u16);

impl WaitMs {
    /// The longest time, in milliseconds.
    pub const MAX: u16 = 60_000;

    /// Whether it is no time at all.
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// As a duration.
    pub fn get(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl TryFrom<u64> for WaitMs {
    type Error = &'static str;

    fn try_from(wait: u64) -> Result<Self, Self::Error> {
        let wait = u16::try_from(wait).ok().filter(|wait| *wait <= Self::MAX);
        wait.map(Self).ok_or("must be from 0 to 60000")
    }
}

impl From<WaitMs> for u64 {
    fn from(wait: WaitMs) -> Self {
        Self::from(wait.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_outside_their_range_are_refused() {
        for (count, accepted) in
            [(0, false), (1, true), (100, true), (1000, true), (1001, false), (65_536, false)]
        {
            assert_eq!(Limit::try_from(count).is_ok(), accepted, "{count}");
        }
    }
}
