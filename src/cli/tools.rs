//! The commands of the feature `tools`.

use std::process::ExitCode;

use clap::Subcommand;

use super::{BAD_CONFIGURATION, Options, fail, print, table::printable};
use crate::{
    config::LogFormat,
    logging::Logging,
    tools::{
        ToolError,
        demo::{self, Credentials, Detail},
        loadtest::{self, Verdict, options::LoadTestOptions},
    },
};

/// The exit code of a load test with a figure beyond a threshold; 3 is for a gateway that does not stop.
const THRESHOLD_BROKEN: u8 = 4;
/// The exit code of a load test with a player that failed.
const PLAYER_FAILED: u8 = 5;
/// The exit code of a load test that a signal ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// A tool to run.
#[derive(Debug, Subcommand)]
pub enum ToolCommand {
    /// Run the draft's example with real MLS clients against gateways in this process, and check the result.
    Demo {
        /// Identify the clients by certificates made for this run.
        #[arg(long)]
        x509: bool,
        /// Run it between the gateways of two domains, with certificates made for this run; one gateway stops and starts again.
        #[arg(long, conflicts_with = "x509")]
        federated: bool,
        /// Show each request and its answer.
        #[arg(long)]
        verbose: bool,
    },
    /// Load a gateway with real MLS clients that commit concurrently, measure it, and prove that it kept its promises.
    #[command(name = "loadtest")]
    LoadTest(Box<LoadTestOptions>),
}

pub(super) fn run(options: &Options, command: ToolCommand) -> ExitCode {
    match command {
        ToolCommand::Demo { x509, federated, verbose } => {
            let detail = if verbose { Detail::Exchanges } else { Detail::Steps };
            run_demo(options, x509, federated, detail)
        }
        ToolCommand::LoadTest(load_test) => run_load_test(options, &load_test),
    }
}

fn run_demo(options: &Options, x509: bool, federated: bool, detail: Detail) -> ExitCode {
    if options.config.is_some() || options.data_dir.is_some() || options.listen.is_some() {
        fail(
            "the demo runs gateways of its own on free ports and keeps nothing: it takes no options of `serve`",
        );
        return ExitCode::from(BAD_CONFIGURATION);
    }
    let credentials = if x509 { Credentials::X509 } else { Credentials::Basic };
    let mut tell = |text: &str| print(&format!("{text}\n"));
    let outcome = actix_web::rt::System::new().block_on(async {
        if federated {
            demo::play_federated(detail, &mut tell).await
        } else {
            demo::play(credentials, detail, &mut tell).await
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("the demo failed: {error}")),
    }
}

fn run_load_test(options: &Options, load_test: &LoadTestOptions) -> ExitCode {
    if options.listen.is_some() {
        fail("a load test listens on a free port or loads the gateway at --url: it takes no --listen");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    // Its directory is created inside --data-dir, and removed.
    let inside = options.data_dir.as_deref();
    let of_gateway = Options { data_dir: None, listen: None, config: options.config.clone() };
    of_gateway.configured(|config| {
        // The gateway's own log would be measured, too.
        let _logging = Logging::start("warn,actix_server=warn,actix_http=off", LogFormat::Text, None);
        match loadtest::run(load_test, config, inside, &mut |text| print(&printable(text))) {
            Ok(Verdict::Proven) => ExitCode::SUCCESS,
            Ok(Verdict::Interrupted) => {
                fail("interrupted: the figures are those until then");
                ExitCode::from(INTERRUPTED)
            }
            Ok(Verdict::PlayerFailed) => {
                fail("a player failed, and the others went on; the table says why");
                ExitCode::from(PLAYER_FAILED)
            }
            Ok(Verdict::ThresholdBroken) => {
                fail("a threshold is broken; the table names it");
                ExitCode::from(THRESHOLD_BROKEN)
            }
            Err(ToolError::Interrupted) => {
                fail("interrupted before there were figures");
                ExitCode::from(INTERRUPTED)
            }
            Ok(Verdict::Unproven) => fail("not everything could be proven; the table says why"),
            Ok(Verdict::Broken) => fail("the gateway broke a promise; the table names it"),
            Err(ToolError::Options(reason)) => {
                fail(&printable(&reason));
                ExitCode::from(BAD_CONFIGURATION)
            }
            Err(error) => fail(&printable(&format!("the load test failed: {error}"))),
        }
    })
}
