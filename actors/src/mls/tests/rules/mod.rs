//! The rule table: for each rule that an observer can check, a well-signed message that breaks just this rule and is
//! refused, and the nearest valid one, which is accepted.
//!
//! The expected answers are those of RFC 9420. `docs/rules.md` is made from the rows; a test compares them.

mod app_data;
mod commit;
mod creation;
mod credentials;
mod external;
mod framing;
mod grease;
mod group_info;
mod key_package;
mod leaf;
mod list;
mod proposal;
mod scene;
mod suites;
mod table;
mod tolerance;
mod tree;

use self::scene::{PRIVATE_USE, Scene, UNLISTED, again, client, plain, renewed};
use super::{super::Rule, Refusal};

/// The way by which a message reaches the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A proposal or commit.
    Handshake(&'static str),
    /// A key package that is uploaded.
    Upload,
    /// A GroupInfo and its tree, from which a group is opened.
    Opening,
}

/// Why something was refused.
#[derive(Clone, Debug)]
struct Answer {
    name: &'static str,
    #[expect(dead_code, reason = "shown when a test fails")]
    detail: String,
}

/// What the observer answered, for each way that a case tries.
type Answers = Vec<(Way, Result<(), Answer>)>;

/// A rule, and its proof.
struct Row {
    /// The name of the test.
    test: &'static str,
    /// What must hold.
    rule: &'static str,
    /// Where RFC 9420 says so.
    source: &'static str,
    /// The stable name of the refusal of a proposal or commit.
    refusal: &'static str,
    /// What the nearest valid neighbour is.
    accepted: &'static str,
    /// Tries the message: broken, or the neighbour.
    attempt: fn(bool) -> Answers,
}

/// The stable name of a refusal: a rule's, or a problem's.
fn answer(refusal: Refusal) -> Answer {
    let detail = format!("{refusal:?}");
    let name = match refusal {
        Refusal::Malformed(_) => "malformed-mls-message",
        Refusal::UnknownKind { .. } => "unknown-kind",
        Refusal::Stale { .. } => "stale-epoch",
        Refusal::Future { .. } => "future-epoch",
        Refusal::Broken { rule, .. } => rule.name(),
        Refusal::OpenedWith(_) | Refusal::OpenedOutsideLifetime { .. } => "invalid-group-info",
        Refusal::GroupInfo(_) => "group-info-mismatch",
        Refusal::WelcomeMissing { .. } => "welcome-missing",
        Refusal::Welcome(_) => "welcome-mismatch",
    };
    Answer { name, detail }
}

/// The answer to a proposal or commit.
fn handshake(result: Result<(), Refusal>) -> Answers {
    vec![(Way::Handshake("the message"), result.map_err(answer))]
}

/// The answer to a GroupInfo and its tree.
fn opening(result: Result<(), Refusal>) -> Answers {
    vec![(Way::Opening, result.map_err(answer))]
}

impl Row {
    /// The broken message is refused by name in every way, and the neighbour accepted in every one.
    fn check(&self) {
        let (valid, broken) = ((self.attempt)(false), (self.attempt)(true));
        assert!(!broken.is_empty() && !valid.is_empty());
        let wrong: Vec<String> = valid
            .into_iter()
            .filter(|(_, answer)| answer.is_err())
            .map(|(way, answer)| format!("the valid neighbour is refused, {way:?}: {answer:?}"))
            .chain(broken.into_iter().filter_map(|(way, answer)| self.wrong(way, answer)))
            .collect();
        assert!(wrong.is_empty(), "{}:\n{}", self.test, wrong.join("\n"));
    }

    /// What is wrong with the answer to the broken message, if anything is.
    fn wrong(&self, way: Way, answer: Result<(), Answer>) -> Option<String> {
        let expected = match way {
            Way::Handshake(_) => self.refusal,
            Way::Upload => "invalid-key-package",
            Way::Opening if self.refusal == "malformed-mls-message" => self.refusal,
            Way::Opening => "invalid-group-info",
        };
        match answer {
            Err(answer) if answer.name == expected => None,
            other => Some(format!("{way:?} should answer {expected}: {other:?}")),
        }
    }
}

/// Something that is accepted.
struct Allowed {
    /// The name of the test.
    test: &'static str,
    /// What it is.
    what: &'static str,
    /// Where RFC 9420 allows it.
    source: &'static str,
    attempt: fn() -> Answers,
}

impl Allowed {
    /// It is accepted in every way.
    fn check(&self) {
        let answers = (self.attempt)();
        assert!(!answers.is_empty());
        let refused: Vec<_> = answers.into_iter().filter(|(_, answer)| answer.is_err()).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", self.test);
    }
}

/// Rows of the table, each with its test.
macro_rules! rules {
    ($($name:ident ($source:literal, $refusal:expr): $rule:literal, accepted: $accepted:literal, $attempt:expr;)*) => {
        pub(super) const ROWS: &[super::Row] = &[$(super::Row {
            test: concat!(module_path!(), "::", stringify!($name)),
            rule: $rule,
            source: $source,
            refusal: $refusal,
            accepted: $accepted,
            attempt: $attempt,
        }),*];

        $(#[test]
        fn $name() {
            let name = concat!(module_path!(), "::", stringify!($name));
            ROWS.iter().find(|row| row.test == name).unwrap().check();
        })*
    };
}

/// Rows of what is allowed, each with its test.
macro_rules! allowed {
    ($($name:ident ($source:literal): $what:literal, $attempt:expr;)*) => {
        pub(super) const ALLOWED: &[super::Allowed] = &[$(super::Allowed {
            test: concat!(module_path!(), "::", stringify!($name)),
            what: $what,
            source: $source,
            attempt: $attempt,
        }),*];

        $(#[test]
        fn $name() {
            let name = concat!(module_path!(), "::", stringify!($name));
            let allowed = ALLOWED.iter().find(|allowed| allowed.test == name).unwrap();
            allowed.check();
        })*
    };
}

use {allowed, rules};
