//! `operator`: a running gateway, seen and changed through its operators' listener.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use actors::{AppId, Epoch};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde::{
    Deserialize as _, Serialize,
    de::{IntoDeserializer as _, value},
};

use super::{
    BAD_CONFIGURATION, Options, fail,
    table::{TextTable, at, counted, joined, or_absent, printable, printable_json, sender},
};
use crate::{
    api::{
        Limit,
        backups::{ListedBackups, MadeBackup},
        clients::PageQuery,
        groups::Groups,
        operated_clients::OperatedClients,
        operated_groups::{EpochsBefore, GroupEpochs, GroupFollower, InspectedGroup, ListedPeers},
        operator::{ListedTokens, MadeTokenBody, OperatedApplications, TokenAccess},
        problem::ProblemKind,
        text::GroupIdText,
    },
    client::{OperatorClient, RequestError},
    token::Token,
    utc::utc,
};

/// The environment variable with the token. An argument would be seen by all users of the machine.
const TOKEN: &str = "MIMI_OPERATOR_TOKEN";

/// The operators' listener of a gateway without a configuration.
pub(super) const URL: &str = "http://127.0.0.1:8081";

/// A request to a running gateway, and how its answer is printed.
#[derive(Debug, Args)]
pub struct OperatorOptions {
    /// The operators' listener of the gateway.
    #[arg(long, global = true, value_name = "URL", default_value = URL)]
    url: String,
    /// Print the gateway's answer, which is JSON, instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// The request.
    #[command(subcommand)]
    command: OperatorCommand,
}

/// The requests of operators.
#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// List the applications, with counts of what they have.
    Applications,
    /// List the tokens of an application, by their ids.
    Tokens {
        /// The application.
        app: AppId,
    },
    /// Make a token for an application, and print it.
    MakeToken {
        /// The application.
        app: AppId,
        /// The requests that it allows: those that change nothing, or all.
        #[arg(long, value_parser = PossibleValuesParser::new(TokenAccess::ALL.iter().copied().map(word)).try_map(access))]
        access: TokenAccess,
    },
    /// Revoke a token of an application.
    RevokeToken {
        /// The application.
        app: AppId,
        /// The id of the token, as `tokens` lists it.
        token_id: String,
    },
    /// List the groups of an application.
    Groups {
        /// The application.
        app: AppId,
        #[command(flatten)]
        page: PageOptions,
    },
    /// Show a group: its epoch, its sizes, and what peers lack of it.
    Group {
        /// The application.
        app: AppId,
        /// The group, as `groups` lists it.
        #[arg(allow_hyphen_values = true)]
        group: GroupIdText,
    },
    /// Delete a group that the gateway orders, with its history, here and at the gateways that follow it.
    DeleteGroup {
        /// The application.
        app: AppId,
        /// The group, as `groups` lists it.
        #[arg(allow_hyphen_values = true)]
        group: GroupIdText,
    },
    /// List the epochs of a group, the newest first.
    Epochs {
        /// The application.
        app: AppId,
        /// The group, as `groups` lists it.
        #[arg(allow_hyphen_values = true)]
        group: GroupIdText,
        /// The most epochs to list.
        #[arg(long, value_name = "COUNT", default_value = "100", value_parser = limit)]
        limit: Limit,
        /// List the epochs before this one.
        #[arg(long, value_name = "EPOCH")]
        before: Option<u64>,
    },
    /// List the clients of an application, with the key packages that they have left.
    Clients {
        /// The application.
        app: AppId,
        #[command(flatten)]
        page: PageOptions,
    },
    /// List the gateways of other domains.
    Peers,
    /// List the backups.
    Backups,
    /// Make a backup now, in the directory of the gateway's configuration.
    Backup,
}

/// A page of a list.
#[derive(Debug, Args)]
struct PageOptions {
    /// The most rows to list, up to 1000.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = limit)]
    limit: Limit,
    /// Continue a list at the cursor that the page before ended with.
    #[arg(long, allow_hyphen_values = true)]
    cursor: Option<String>,
}

impl From<PageOptions> for PageQuery {
    fn from(PageOptions { limit, cursor }: PageOptions) -> Self {
        Self { limit, cursor }
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    let count: u64 = text.parse().map_err(|_| "must be a whole number".to_owned())?;
    Limit::try_from(count).map_err(str::to_owned)
}

fn access(word: String) -> Result<TokenAccess, value::Error> {
    TokenAccess::deserialize(word.into_deserializer())
}

fn word(access: TokenAccess) -> &'static str {
    match access {
        TokenAccess::Read => "read",
        TokenAccess::ReadWrite => "read-write",
    }
}

/// Makes the request and prints its answer.
pub(super) fn run(options: &Options, request: OperatorOptions) -> ExitCode {
    let wrong_use = |reason: &str| {
        fail(&printable(reason));
        ExitCode::from(BAD_CONFIGURATION)
    };
    if options.config.is_some() || options.data_dir.is_some() || options.listen.is_some() {
        return wrong_use(
            "`operator` asks a gateway that runs, the one at --url: it takes no options of `serve`",
        );
    }
    let OperatorOptions { url, json, command } = request;
    let token = match token_for(&url) {
        Ok(token) => token,
        Err(reason) => return wrong_use(&reason),
    };
    let outcome = actix_web::rt::System::new().block_on(async {
        let client = OperatorClient::new(&url, token)?;
        answer(&client, command, json).await
    });
    match outcome {
        Ok(Printed { text, note, is_secret }) => {
            let written = print_all(&text);
            if written.is_err() && is_secret {
                return fail(
                    "the token could not be printed and is lost: list the tokens, and revoke the newest",
                );
            }
            if let Some(note) = note {
                fail(&printable(&note));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&printable(&explained(&url, &error))),
    }
}

/// The token of the environment, for a listener at a URL.
fn token_for(url: &str) -> Result<Token, String> {
    let token = std::env::var(TOKEN)
        .map_err(|_| format!("the environment variable {TOKEN} must hold a token of an operator"))?;
    if token.is_empty() || !token.chars().all(|letter| letter.is_ascii_graphic()) {
        return Err(format!("{TOKEN} is not a token: it is empty or has characters that no token has"));
    }
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err("--url must begin with http:// or https://".to_owned());
    }
    Ok(Token::new(token))
}

/// Asks the gateway at a URL for a backup.
pub(super) fn make_backup(url: &str) -> Result<MadeBackup, String> {
    let token = token_for(url)?;
    let made =
        actix_web::rt::System::new().block_on(async { OperatorClient::new(url, token)?.make_backup().await });
    made.map_err(|error| explained(url, &error))
}

fn print_all(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// What is printed of an answer.
struct Printed {
    /// For standard output.
    text: String,
    /// For standard error.
    note: Option<String>,
    /// Whether the text is all that there is of a token.
    is_secret: bool,
}

/// An answer with its table.
trait Tabular: Serialize {
    fn table(&self) -> TextTable;

    /// The cursor of the next page.
    fn next_cursor(&self) -> Option<&str> {
        None
    }
}

impl Printed {
    fn of(answer: &impl Tabular, is_json: bool) -> Self {
        let note =
            answer.next_cursor().map(|cursor| format!("there are more: continue with --cursor {cursor}"));
        let text = if is_json { json_of(answer) } else { answer.table().lines() };
        Self { text, note: note.filter(|_| !is_json), is_secret: false }
    }

    /// What was done, by a request whose answer is empty.
    fn done(what: &str, is_json: bool) -> Self {
        let text = if is_json { String::new() } else { format!("{what}\n") };
        Self { text, note: None, is_secret: false }
    }
}

fn json_of(answer: &impl Serialize) -> String {
    // Every answer was JSON before.
    let json = serde_json::to_string_pretty(answer).unwrap_or_default();
    printable_json(&format!("{json}\n"))
}

async fn answer(
    client: &OperatorClient,
    command: OperatorCommand,
    is_json: bool,
) -> Result<Printed, RequestError> {
    Ok(match command {
        OperatorCommand::Applications => Printed::of(&client.applications().await?, is_json),
        OperatorCommand::Tokens { app } => Printed::of(&client.tokens(app).await?, is_json),
        OperatorCommand::MakeToken { app, access } => {
            Printed { is_secret: true, ..Printed::of(&client.make_token(app, access).await?, is_json) }
        }
        OperatorCommand::RevokeToken { app, token_id } => {
            client.revoke_token(app, &token_id).await?;
            Printed::done("revoked", is_json)
        }
        OperatorCommand::Groups { app, page } => {
            Printed::of(&client.groups(app, &page.into()).await?, is_json)
        }
        OperatorCommand::Group { app, group } => Printed::of(&client.group(app, &group.0).await?, is_json),
        OperatorCommand::DeleteGroup { app, group } => {
            client.delete_group(app, &group.0).await?;
            Printed::done("deleted", is_json)
        }
        OperatorCommand::Epochs { app, group, limit, before } => {
            let query = EpochsBefore { limit, before: before.map(Epoch) };
            Printed::of(&client.epochs(app, &group.0, &query).await?, is_json)
        }
        OperatorCommand::Clients { app, page } => {
            Printed::of(&client.clients(app, &page.into()).await?, is_json)
        }
        OperatorCommand::Peers => Printed::of(&client.peers().await?, is_json),
        OperatorCommand::Backups => Printed::of(&client.backups().await?, is_json),
        OperatorCommand::Backup => Printed::of(&client.make_backup().await?, is_json),
    })
}

/// Why there is no answer, for an operator.
fn explained(url: &str, error: &RequestError) -> String {
    let detail = match error {
        RequestError::Problem(problem) => &problem.detail,
        RequestError::Transport(error) => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            let what = if error.is_connect() { "no gateway is" } else { "no answer came from the gateway" };
            return format!("{what} at {url}: {cause}");
        }
        RequestError::Unexpected { .. } => return format!("at {url}: {error}"),
    };
    match error.kind() {
        Some(ProblemKind::NotAuthenticated) => format!("the token in {TOKEN} is wrong: {detail}"),
        Some(ProblemKind::NotPermitted) => format!("the token in {TOKEN} lacks access: {detail}"),
        Some(ProblemKind::UnknownRoute) => {
            format!(
                "{url} is not the operators' listener of this version; a gateway prints its address as `operator=`"
            )
        }
        _ => error.to_string(),
    }
}

impl Tabular for OperatedApplications {
    fn table(&self) -> TextTable {
        let mut table = TextTable::of(["APPLICATION", "CLIENTS", "GROUPS", "KEY PACKAGES", "FEDERATES WITH"]);
        for application in &self.applications {
            table.row([
                application.id.to_string(),
                counted(application.clients),
                counted(application.groups),
                counted(application.key_packages),
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
