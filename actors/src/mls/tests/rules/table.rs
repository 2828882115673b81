//! `docs/rules.md`, made from the rows.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use super::{
    Row, Rule, app_data, commit, creation, credentials, external, framing, grease, group_info, key_package,
    leaf, list, proposal, suites, tolerance, tree,
};

const SECTIONS: &[(&str, &[Row])] = &[
    ("Key packages", key_package::ROWS),
    ("Leaf nodes", leaf::ROWS),
    ("Credentials", credentials::ROWS),
    ("Ratchet trees", tree::ROWS),
    ("New groups and their GroupInfo", creation::ROWS),
    ("Framing and senders", framing::ROWS),
    ("Proposals", proposal::ROWS),
    ("Lists of proposals", list::ROWS),
    ("Application data", app_data::ROWS),
    ("Paths", commit::ROWS),
    ("External commits", external::ROWS),
    ("GroupInfo and Welcome of a commit", group_info::ROWS),
    ("Cipher suites", suites::ROWS),
];

/// A rule whose test needs more than an observer.
struct Elsewhere {
    rule: &'static str,
    source: &'static str,
    refusal: &'static str,
    file: &'static str,
    test: &'static str,
}

const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        rule: "A client is of a domain that its sender speaks for.",
        source: "the draft, *Key Package Validation*",
        refusal: "domain",
        file: "tests/it/x509/mod.rs",
        test: "a_sender_speaks_for_its_own_domain",
    },
    Elsewhere {
        rule: "The identity provider accepts the credential of each leaf that a proposal or commit brings in.",
        source: "§5.3.1; the draft, *Identity Providers*",
        refusal: "identity",
        file: "tests/it/x509/mod.rs",
        test: "an_account_cannot_name_others",
    },
    Elsewhere {
        rule: "The identity provider accepts the X.509 credentials of external senders, if it knows X.509. Other credentials \
               of external senders certify nothing: what counts is that a member, who sets the extension, knows the key.",
        source: "§5.3.1, §12.1.8.1",
        refusal: "identity",
        file: "tests/it/x509/expiry.rs",
        test: "the_certificates_of_external_senders_are_validated",
    },
    Elsewhere {
        rule: "A member whose credential has expired or is revoked does nothing but renew it, and leave.",
        source: "the draft, *Handing Timestamps*",
        refusal: "identity",
        file: "actors/src/mls/tests/expiry.rs",
        test: "only_a_hub_holds_members_to_their_expiry",
    },
    Elsewhere {
        rule: "A resumption key of usage `reinit` or `branch` is in the first commit of a group, by value and by its creator.",
        source: "§11.2, §11.3, §12.1.4",
        refusal: "proposal",
        file: "actors/src/mls/tests/first_commit.rs",
        test: "the_creator_alone_may_resume_another_group",
    },
    Elsewhere {
        rule: "An added client has no key of the leaf that the committer's path replaces.",
        source: "§7.3, §12.2",
        refusal: "distinct-keys",
        file: "actors/src/mls/tests/committer_keys.rs",
        test: "nobody_comes_in_with_a_key_that_the_committer_gives_up",
    },
];

/// A rule that only a member can check.
const SECRET: &[(&str, &str, &str)] = &[
    ("The membership tag of a member's PublicMessage is right.", "§6.2", "the epoch's `membership_key`"),
    ("The confirmation tag of a commit is right.", "§6.1, §8.1", "the new epoch's `confirmation_key`"),
    (
        "Each ciphertext of a path holds the path secret of its node.",
        "§7.5, §7.6",
        "a private key in the resolution",
    ),
    ("The keys of a path are those of its path secrets.", "§7.5", "the path secrets"),
    (
        "A Welcome holds the group secrets and the GroupInfo of its epoch.",
        "§12.4.3.1",
        "the `init_key` of a receiver",
    ),
    ("All members have the pre-shared keys of a commit.", "§8.4, §12.4.2", "the keys"),
    ("A `kem_output` is that of the group's external key.", "§8.3", "the epoch's `external_secret`"),
    (
        "The `external_pub` of a GroupInfo is the group's external key.",
        "§12.4.3.2",
        "the epoch's `external_secret`",
    ),
    ("A group that follows a ReInit or a branch meets its conditions.", "§11.2, §11.3", "the Welcome"),
];

/// Where the gateway refuses what RFC 9420 lets pass, and why.
const STRICTER: &[(&str, &str)] = &[
    (
        "Handshake messages are PublicMessages.",
        "The gateway orders commits because it can check them. Applications that hide handshakes from the gateway cannot use it.",
    ),
    (
        "A proposal that comes alone is judged by the members and the group context of its epoch, even if a commit could \
         change them in its favour.",
        "A committer who takes all proposals of an epoch must not be refused because of one of them. Such a proposal can be \
         committed by value.",
    ),
    (
        "HPKE keys of leaves, key packages and paths are keys of the suite, and of no low order.",
        "RFC 9180 §7.1.4 makes encryption to such a key fail, so that a commit could take the leaf in and none after it \
         could be made.",
    ),
    (
        "The lifetime of an added leaf is checked, against the time that the hub gives the message.",
        "RFC 9420 §7.3 recommends it. All gateways use the same time, so that they agree.",
    ),
    (
        "Proposals of a type that the gateway does not know are one vector.",
        "Where the next proposal of a commit begins can only be told if the form of each is known.",
    ),
    (
        "Credentials are of the types `basic` and `x509`, pre-shared keys of the types `external`, `resumption` and \
         `application`.",
        "The gateway must know who a client is. The form of other pre-shared keys is unknown.",
    ),
    (
        "A commit with an AppDataUpdate that changes data comes with a GroupInfo.",
        "Only the application knows the new data, and they are part of the group context, which members sign.",
    ),
    (
        "The GroupInfo of a commit is signed by the committer.",
        "The draft has the committer upload it. A GroupInfo of another member would be uploaded by that member's \
         application.",
    ),
    (
        "A commit refers to a proposal once.",
        "A reference names one proposal of one sender. A sender who means it twice sends two.",
    ),
    ("One Welcome has the secrets of all added clients.", "The draft's request has one `welcomePacket`."),
    (
        "A commit has at most `proposals_per_commit_max` proposals, a group at most `group_members_max` members, a group id \
         1 to 255 bytes.",
        "Without limits, one message could stop the gateway for others.",
    ),
    (
        "A new group has one member, and a client is in a group once.",
        "The draft says so (*Group Creation*, *Identity Providers*).",
    ),
];

/// Every rule; the match in [`known`] fails to compile when one is missing here.
const RULES: &[Rule] = &[
    Rule::PublicMessage,
    Rule::Group,
    Rule::Sender,
    Rule::Signature,
    Rule::KnownProposals,
    Rule::DistinctProposals,
    Rule::OneProposalPerLeaf,
    Rule::ReInitAlone,
    Rule::NothingAfterReInit,
    Rule::Proposal,
    Rule::ProposalCount,
    Rule::PathRequired,
    Rule::Path,
    Rule::PathCiphertexts,
    Rule::LeafNode,
    Rule::Lifetime,
    Rule::DistinctKeys,
    Rule::Capabilities,
    Rule::GroupContextExtensions,
    Rule::ExternalCommit,
    Rule::Identity,
    Rule::Successor,
    Rule::DistinctClients,
    Rule::Domain,
    Rule::MemberCount,
];

fn known(rule: Rule) -> &'static str {
    match rule {
        Rule::PublicMessage
        | Rule::Group
        | Rule::Sender
        | Rule::Signature
        | Rule::KnownProposals
        | Rule::DistinctProposals
        | Rule::OneProposalPerLeaf
        | Rule::ReInitAlone
        | Rule::NothingAfterReInit
        | Rule::Proposal
        | Rule::ProposalCount
        | Rule::PathRequired
        | Rule::Path
        | Rule::PathCiphertexts
        | Rule::LeafNode
        | Rule::Lifetime
        | Rule::DistinctKeys
        | Rule::Capabilities
        | Rule::GroupContextExtensions
        | Rule::ExternalCommit
        | Rule::Identity
        | Rule::Successor
        | Rule::DistinctClients
        | Rule::Domain
        | Rule::MemberCount => rule.name(),
    }
}

fn short(test: &str) -> &str {
    test.rsplit_once("rules::").map_or(test, |(_, short)| short)
}

fn rendered() -> String {
    let mut out = String::from(
        "# Rules\n\n\
         Each rule that an observer of a group can check, and the proof that the gateway does: a well-signed message that breaks\n\
         just this rule is refused by this name, and the nearest valid message is accepted. Section numbers are those of RFC 9420,\n\
         \"the draft\" is *MIMI Back-end Architecture*, and \"MLS extensions\" is the draft *The Messaging Layer Security (MLS)\n\
         Extensions*.\n\n\
         A refusal is named by the `rule` of the problem `invalid-proposal` or `invalid-commit`, or by the problem itself. An\n\
         uploaded key package that breaks a rule is answered `invalid-key-package`. A group info or tree that does is answered\n\
         `invalid-group-info`, or `malformed-mls-message` if that is the name of the refusal.\n\n\
         The tests are in `actors/src/mls/tests/rules/`. This page is made from them: `MIMI_WRITE_RULES=1 cargo test\n\
         -p mimi-gateway-actors the_page_has_the_rows` writes it.\n",
    );
    for (title, rows) in SECTIONS {
        writeln!(out, "\n## {title}\n\n| rule | source | refusal | accepted | test |\n|---|---|---|---|---|")
            .unwrap();
        for row in *rows {
            let Row { rule, source, refusal, accepted, .. } = row;
            writeln!(out, "| {rule} | {source} | `{refusal}` | {accepted} | `{}` |", short(row.test))
                .unwrap();
        }
    }
    out.push_str("\n## Rules whose tests need more than an observer\n\n| rule | source | refusal | test |\n|---|---|---|---|\n");
    for Elsewhere { rule, source, refusal, file, test } in ELSEWHERE {
        writeln!(out, "| {rule} | {source} | `{refusal}` | `{file}`, `{test}` |").unwrap();
    }
    out.push_str("\n## Rules that only members can check\n\n| rule | source | needs |\n|---|---|---|\n");
    for (rule, source, needs) in SECRET {
        writeln!(out, "| {rule} | {source} | {needs} |").unwrap();
    }
    out.push_str("\n## What is allowed\n\nMessages that look strange and are valid.\n\n| message | source | test |\n|---|---|---|\n");
    for allowed in [tolerance::ALLOWED, app_data::ALLOWED, grease::ALLOWED].into_iter().flatten() {
        writeln!(out, "| {} | {} | `{}` |", allowed.what, allowed.source, short(allowed.test)).unwrap();
    }
    out.push_str("\n## Where the gateway is stricter than RFC 9420\n\n| rule | reason |\n|---|---|\n");
    for (rule, reason) in STRICTER {
        writeln!(out, "| {rule} | {reason} |").unwrap();
    }
    out
}

#[test]
fn the_page_has_the_rows() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules.md");
    let rendered = rendered();
    if std::env::var_os("MIMI_WRITE_RULES").is_some() {
        std::fs::write(&page, &rendered).unwrap();
    }
    let committed = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        committed == rendered,
        "write it again: MIMI_WRITE_RULES=1 cargo test -p mimi-gateway-actors the_page_has_the_rows"
    );
}

#[test]
fn every_rule_of_the_code_has_a_row() {
    let rows = SECTIONS.iter().flat_map(|(_, rows)| rows.iter().map(|row| row.refusal));
    let named: BTreeSet<&str> = rows.chain(ELSEWHERE.iter().map(|row| row.refusal)).collect();
    let of_rules: BTreeSet<&str> = RULES.iter().map(|rule| known(*rule)).collect();
    let missing: Vec<_> = of_rules.difference(&named).collect();
    assert!(missing.is_empty(), "no row proves {missing:?}");
    // What is no rule's name is a problem's.
    let problems: BTreeSet<&str> = named.difference(&of_rules).copied().collect();
    let known = [
        "future-epoch",
        "group-info-mismatch",
        "invalid-group-info",
        "malformed-mls-message",
        "stale-epoch",
        "unknown-kind",
        "welcome-mismatch",
        "welcome-missing",
    ];
    assert_eq!(problems, BTreeSet::from(known));
}

#[test]
fn tests_elsewhere_exist() {
    for row in ELSEWHERE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(row.file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("fn {}()", row.test)), "{} has no {}", row.file, row.test);
    }
}
