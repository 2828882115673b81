//! `operator`: a running gateway, seen and changed through its operators' listener.

mod tables;

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

use self::tables::Tabular;
use super::{
    BAD_CONFIGURATION, Options, fail,
    table::{printable, printable_json},
};
use crate::{
    api::{
        Limit, backups::MadeBackup, clients::PageQuery, operated_groups::EpochsBefore, operator::TokenAccess,
        problem::ProblemKind, text::GroupIdText,
    },
    client::{OperatorClient, RequestError},
    token::Token,
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
    /// List the epochs of groups that members cannot open, as they have reported.
    Reports {
        /// The application.
        app: AppId,
        #[command(flatten)]
        page: PageOptions,
    },
    /// List the audit log of an application, the newest entries first.
    Audit {
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
        OperatorCommand::Reports { app, page } => {
            Printed::of(&client.reports(app, &page.into()).await?, is_json)
        }
        OperatorCommand::Audit { app, page } => Printed::of(&client.audit(app, &page.into()).await?, is_json),
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
