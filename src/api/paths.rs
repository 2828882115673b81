//! Path parameters: `{appId}`, `{clientId}`, `{keyQueueId}`, `{clientHandle}`, `{groupId}` and `{id}`.

use std::str::FromStr;

use actors::{AppId, ClientHandle, ClientId, DeliveryId, GroupId, KeyQueueId};

use super::{
    percent,
    problem::ProblemKind,
    text::{GroupIdText, HandleText},
};

/// The values of the names in braces of a path template.
pub trait PathMembers: Sized {
    /// Parses the members from the segments of a path at the template's braces, in order, still percent-encoded.
    ///
    /// # Errors
    /// [`PathError`] when a segment is not the text form of its member.
    fn read(segments: &[&str]) -> Result<Self, PathError>;

    /// The text forms of the members, in the order of the template, not percent-encoded.
    fn texts(&self) -> Vec<String>;
}

/// A segment that is not the text form of its member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PathError {
    /// The problem type of the answer.
    pub kind: ProblemKind,
    /// The fault.
    pub detail: String,
}

/// Fills a template with members, percent-encoded.
pub fn fill(template: &str, members: &impl PathMembers) -> String {
    let mut texts = members.texts().into_iter();
    let segments = template.split('/').map(|segment| {
        if is_member(segment) {
            percent::encode(&texts.next().unwrap_or_default())
        } else {
            segment.to_owned()
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Whether a segment of a template is a member in braces.
pub fn is_member(segment: &str) -> bool {
    segment.starts_with('{')
}

/// A path without members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMembers;

impl PathMembers for NoMembers {
    fn read(_: &[&str]) -> Result<Self, PathError> {
        Ok(Self)
    }

    fn texts(&self) -> Vec<String> {
        Vec::new()
    }
}

/// One member of a path, read from and written as text.
trait PathSegment: Sized {
    fn read(segment: &str) -> Result<Self, PathError>;
    fn text(&self) -> String;
}

macro_rules! members {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty, $about:literal;)+ })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $(#[doc = $about] pub $field: $type,)+
        }

        impl PathMembers for $name {
            fn read(segments: &[&str]) -> Result<Self, PathError> {
                let mut segments = segments.iter().copied();
                Ok(Self { $($field: PathSegment::read(segments.next().unwrap_or_default())?,)+ })
            }

            fn texts(&self) -> Vec<String> {
                vec![$(self.$field.text(),)+]
            }
        }
    )*};
}

members! {
    /// `/apps/{appId}/…`
    AppPath { app: AppId, "The application."; }
    /// `/apps/{appId}/clients/{clientId}/…`
    ClientPath { app: AppId, "The application."; client: ClientId, "The client."; }
    /// `/apps/{appId}/clients/{clientId}/queues/{keyQueueId}`
    KeyQueuePath {
        app: AppId, "The application.";
        client: ClientId, "The client.";
        queue: KeyQueueId, "The key queue.";
    }
    /// `/apps/{appId}/clients/{clientHandle}/…`
    HandlePath { app: AppId, "The application."; handle: ClientHandle, "The client handle."; }
    /// `/apps/{appId}/clients/{clientHandle}/welcome-msgs/{id}`
    JoinInfoPath {
        app: AppId, "The application.";
        handle: ClientHandle, "The client handle.";
        id: DeliveryId, "The `id` of the join info.";
    }
    /// `/apps/{appId}/groups/{groupId}/…`
    GroupPath { app: AppId, "The application."; group: GroupId, "The group."; }
}

impl PathSegment for AppId {
    fn read(segment: &str) -> Result<Self, PathError> {
        parse(segment, ProblemKind::NotPermitted, "the token belongs to another application")
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl PathSegment for ClientId {
    fn read(segment: &str) -> Result<Self, PathError> {
        parse(segment, ProblemKind::UnknownClient, "no client has this clientId: it is not a UUID")
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl PathSegment for KeyQueueId {
    fn read(segment: &str) -> Result<Self, PathError> {
        parse(segment, ProblemKind::UnknownKeyQueue, "no queue has this keyQueueId: it is not a UUID")
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl PathSegment for ClientHandle {
    fn read(segment: &str) -> Result<Self, PathError> {
        let text = text(segment).ok_or_else(|| {
            malformed("clientHandle: not percent-encoded UTF-8; write bytes that are not UTF-8 as `b64:` and base64url")
        })?;
        let HandleText(handle) = text.parse().map_err(|error| malformed(format!("clientHandle: {error}")))?;
        Ok(handle)
    }

    fn text(&self) -> String {
        HandleText(self.clone()).to_string()
    }
}

impl PathSegment for GroupId {
    fn read(segment: &str) -> Result<Self, PathError> {
        let text =
            text(segment).ok_or_else(|| malformed("groupId: a group id is base64url without padding"))?;
        let GroupIdText(group) = text.parse().map_err(|error| malformed(format!("groupId: {error}")))?;
        Ok(group)
    }

    fn text(&self) -> String {
        GroupIdText(self.clone()).to_string()
    }
}

impl PathSegment for DeliveryId {
    fn read(segment: &str) -> Result<Self, PathError> {
        parse(segment, ProblemKind::MalformedRequest, "id: take it from a join info as it is")
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

fn parse<T: FromStr>(segment: &str, kind: ProblemKind, detail: &str) -> Result<T, PathError> {
    text(segment).and_then(|text| text.parse().ok()).ok_or_else(|| error(kind, detail))
}

fn text(segment: &str) -> Option<String> {
    String::from_utf8(percent::decode(segment)?).ok()
}

fn malformed(detail: impl Into<String>) -> PathError {
    error(ProblemKind::MalformedRequest, detail)
}

fn error(kind: ProblemKind, detail: impl Into<String>) -> PathError {
    PathError { kind, detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11";

    fn check<P: PathMembers>(segments: &[&str], expected: Result<&[&str], ProblemKind>) {
        let outcome = P::read(segments).map(|members| members.texts()).map_err(|error| error.kind);
        let expected = expected.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(outcome, expected, "{segments:?}");
    }

    #[test]
    fn members_are_read_from_raw_segments() {
        use ProblemKind::{MalformedRequest, NotPermitted, UnknownClient, UnknownKeyQueue};
        check::<AppPath>(&[APP], Ok(&[APP]));
        check::<AppPath>(&["%37c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11"], Ok(&[APP]));
        check::<AppPath>(&["7c0c7b445a0f4a439a510a9f6b9c7e11"], Err(NotPermitted));
        check::<ClientPath>(&[APP, APP], Ok(&[APP, APP]));
        check::<ClientPath>(&[APP, ""], Err(UnknownClient));
        check::<ClientPath>(&[APP, "alice"], Err(UnknownClient));
        check::<ClientPath>(&[APP, "%zz"], Err(UnknownClient));
        check::<KeyQueuePath>(&[APP, APP, "1"], Err(UnknownKeyQueue));
        check::<HandlePath>(&[APP, "alice%2Fphone"], Ok(&[APP, "alice/phone"]));
        check::<HandlePath>(&[APP, "a+b%2Bc"], Ok(&[APP, "a+b+c"]));
        check::<HandlePath>(&[APP, "b64:_w"], Ok(&[APP, "b64:_w"]));
        check::<HandlePath>(&[APP, "b64%3A_w"], Ok(&[APP, "b64:_w"]));
        check::<HandlePath>(&[APP, "%FF"], Err(MalformedRequest));
        check::<HandlePath>(&[APP, "%2"], Err(MalformedRequest));
        check::<HandlePath>(&[APP, ""], Err(MalformedRequest));
        check::<HandlePath>(&[APP, "b64:YWxpY2U"], Err(MalformedRequest));
        check::<HandlePath>(&[APP, "b64:Lg"], Ok(&[APP, "b64:Lg"]));
        check::<HandlePath>(&[APP, "b64%3ALi4"], Ok(&[APP, "b64:Li4"]));
        check::<HandlePath>(&[APP, "."], Err(MalformedRequest));
        check::<HandlePath>(&[APP, ".."], Err(MalformedRequest));
        check::<HandlePath>(&[APP, "%2E"], Err(MalformedRequest));
        check::<HandlePath>(&[APP, "%2e%2E"], Err(MalformedRequest));
        check::<HandlePath>(&[APP, "..."], Ok(&[APP, "..."]));
        check::<GroupPath>(&[APP, "AAEC"], Ok(&[APP, "AAEC"]));
        check::<GroupPath>(&[APP, "AAE="], Err(MalformedRequest));
        check::<JoinInfoPath>(&[APP, "a", "00000000000000ff"], Ok(&[APP, "a", "00000000000000ff"]));
        check::<JoinInfoPath>(&[APP, "a", "ff"], Err(MalformedRequest));
    }

    #[test]
    fn a_template_is_filled_percent_encoded() {
        let members = HandlePath::read(&[APP, "alice%2Fphone"]).unwrap();
        let path = fill("/apps/{appId}/clients/{clientHandle}/groups", &members);
        assert_eq!(path, format!("/apps/{APP}/clients/alice%2Fphone/groups"));
    }
}
