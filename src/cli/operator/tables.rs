//! The answers to operators as tables.

use serde::Serialize;

use super::{
    super::table::{TextTable, at, counted, joined, or_absent, sender},
    word,
};
use crate::{
    api::{
        audit::{AuditLog, AuditedEntry, AuditedEvent, ClaimedKeyPackagesBody, ClaimedQueueBody},
        backups::{ListedBackups, MadeBackup},
        events::EpochReportedEvent,
        groups::Groups,
        operated_clients::OperatedClients,
        operated_groups::{GroupEpochs, GroupFollower, InspectedGroup, ListedPeers},
        operator::{ListedTokens, MadeTokenBody, OperatedApplications},
        reports::{CommitterBody, ListedReports},
    },
    utc::utc,
};

/// An answer with its table.
pub(super) trait Tabular: Serialize {
    fn table(&self) -> TextTable;

    /// The cursor of the next page.
    fn next_cursor(&self) -> Option<&str> {
        None
    }
}

impl Tabular for OperatedApplications {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of([
            "APPLICATION",
            "CLIENTS",
            "GROUPS",
            "KEY PACKAGES",
            "STORED BYTES",
            "FEDERATES WITH",
        ]);
        for application in &self.applications {
            table.row([
                application.id.to_string(),
                counted(application.clients),
                counted(application.groups),
                counted(application.key_packages),
                application.quotas.stored_bytes.used.to_string(),
                joined(&application.federates_with),
            ]);
        }
        table
    }
}

impl Tabular for ListedTokens {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of(["TOKEN ID", "ACCESS", "MADE"]);
        for token in &self.tokens {
            table.row([
                token.token_id.clone(),
                word(token.access).to_owned(),
                or_absent(token.created_at.map(at)),
            ]);
        }
        table
    }
}

impl Tabular for MadeTokenBody {
    fn table(&self) -> TextTable {
        TextTable::of_members([("token:", self.token.clone()), ("token id:", self.token_id.clone())])
    }
}

impl Tabular for Groups {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of(["GROUP", "EPOCH", "HUB"]);
        for group in &self.groups {
            table.row([
                group.group_id.to_string(),
                group.epoch_id.to_string(),
                or_absent(group.hub_domain.as_ref()),
            ]);
        }
        table
    }

    fn next_cursor(&self) -> Option<&str> {
        self.next_cursor.as_deref()
    }
}

impl Tabular for ListedReports {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of(["GROUP", "EPOCH", "REPORTERS", "FIRST", "TOLD", "COMMITTER"]);
        for report in &self.epochs {
            table.row([
                report.group_id.to_string(),
                report.epoch_id.to_string(),
                report.reporters.to_string(),
                at(report.first_at),
                or_absent(report.told_at.map(at)),
                or_absent(report.committer.as_ref().map(committer)),
            ]);
        }
        table
    }

    fn next_cursor(&self) -> Option<&str> {
        self.next_cursor.as_deref()
    }
}

/// The key packages that a claimant was assigned, in words.
fn claims(claimed: &ClaimedKeyPackagesBody) -> String {
    let ClaimedKeyPackagesBody { peer, queue, taken, last_at, receivers } = claimed;
    let by = peer.as_ref().map_or_else(|| "the application".to_owned(), ToString::to_string);
    let of = match queue {
        Some(ClaimedQueueBody { client_handle, key_queue_id, .. }) => {
            format!("{client_handle} (queue {key_queue_id})")
        }
        None => "further queues".to_owned(),
    };
    format!("{taken} of {of}, by {by}; last: {}; receivers: {}", at(*last_at), receivers.join(", "))
}

impl Tabular for AuditLog {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of(["NUMBER", "AT", "WHAT", "OF"]);
        for AuditedEntry { number, at: time, entry } in &self.entries {
            let (what, of) = match entry {
                AuditedEvent::EpochReported(event) => {
                    let EpochReportedEvent { group_id, epoch_id, reporters, committer: by } = event;
                    let by = or_absent(by.as_ref().map(committer));
                    let of = format!("epoch {epoch_id} of {group_id}, by {reporters}; committer: {by}");
                    ("epoch-reported", of)
                }
                AuditedEvent::KeyPackagesClaimed(claimed) => ("key-packages-claimed", claims(claimed)),
            };
            table.row([number.to_string(), at(*time), what.to_owned(), of]);
        }
        table
    }

    fn next_cursor(&self) -> Option<&str> {
        self.next_cursor.as_deref()
    }
}

fn committer(by: &CommitterBody) -> String {
    format!("leaf {} {}", by.leaf_index, by.client_handle)
}

impl Tabular for InspectedGroup {
    fn table(&self) -> TextTable {
        let lag = |follower: &GroupFollower| format!("{} lacks {}", follower.domain, follower.lag_entries);
        TextTable::of_members([
            ("group", self.group_id.to_string()),
            ("epoch", self.epoch_id.to_string()),
            ("hub", or_absent(self.hub_domain.as_ref())),
            ("created", at(self.created_at)),
            ("cipher suite", self.cipher_suite.to_string()),
            ("members", self.members.to_string()),
            ("ratchet tree bytes", self.ratchet_tree_bytes.to_string()),
            ("waiting proposals", self.proposals.to_string()),
            ("log entries", self.log_entries.to_string()),
            ("oldest epoch", or_absent(self.oldest_epoch_id)),
            ("followers", joined(self.followers.iter().map(lag))),
        ])
    }
}

impl Tabular for GroupEpochs {
    fn table(&self) -> TextTable {
        let mut table =
            TextTable::of(["EPOCH", "CREATED", "COMMITTER", "COMMIT BYTES", "PROPOSALS", "LOST TO IT"]);
        for epoch in &self.epochs {
            table.row([
                epoch.epoch_id.to_string(),
                at(epoch.timestamp),
                sender(epoch.committer_leaf_index),
                epoch.commit_bytes.to_string(),
                epoch.proposals.to_string(),
                joined(epoch.losers.iter().map(|loser| sender(loser.leaf_index))),
            ]);
        }
        table
    }
}

impl Tabular for OperatedClients {
    fn table(&self) -> TextTable {
        let mut table =
            TextTable::of(["CLIENT", "HANDLE", "DOMAIN", "KEY QUEUES", "KEY PACKAGES LEFT", "TAGS"]);
        for client in &self.clients {
            table.row([
                client.client_id.to_string(),
                client.client_handle.to_string(),
                or_absent(client.domain.as_ref()),
                client.key_queues.to_string(),
                client.key_packages_available.to_string(),
                joined(&client.tags),
            ]);
        }
        table
    }

    fn next_cursor(&self) -> Option<&str> {
        self.next_cursor.as_deref()
    }
}

impl Tabular for ListedPeers {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of([
            "PEER",
            "REACHABLE",
            "LAST CONTACT",
            "REFUSALS",
            "GROUPS BEHIND",
            "ENTRIES BEHIND",
            "GROUPS LOST HERE, THERE",
            "TRUST DIFFERS",
        ]);
        for peer in &self.peers {
            table.row([
                peer.domain.to_string(),
                if peer.is_reachable { "yes" } else { "no" }.to_owned(),
                or_absent(peer.last_contact.map(|at| utc(at / 1000))),
                peer.refusals.to_string(),
                peer.lag_groups.to_string(),
                peer.lag_entries.to_string(),
                format!("{}, {}", peer.groups_lost_here, peer.groups_lost_there),
                or_absent(peer.differing_trust()),
            ]);
        }
        table
    }
}

impl Tabular for ListedBackups {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of(["BACKUP", "CREATED", "BYTES"]);
        for backup in &self.backups {
            table.row([backup.name.clone(), at(backup.created_at), backup.bytes.to_string()]);
        }
        table
    }
}

impl Tabular for MadeBackup {
    fn table(&self) -> TextTable {
        TextTable::of_members([
            ("directory", self.directory.clone()),
            ("backup", self.name.clone()),
            ("created", at(self.created_at)),
            ("bytes", self.bytes.to_string()),
            ("rows", self.rows.to_string()),
        ])
    }
}
