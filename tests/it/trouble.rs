//! Failures of the machine: a clock that jumps, a disk that hangs, a data directory that vanishes, a truncated journal.
//! The binary runs in its own process.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use actors::AppId;
use mimi_gateway::{
    api::{
        clients::NewClientBody,
        key_packages::{KeyPackageUploadBody, NewKeyQueueBody},
        problem::ProblemKind,
        text::{Base64, HandleText},
    },
    client::{GatewayClient, RequestError, plain_http},
    token::Token,
};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

use crate::support::process::{Process, binary};

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration and a data directory.
struct Place {
    directory: tempfile::TempDir,
    app: AppId,
    token: Token,
}

impl Place {
    fn new(settings: &str) -> Self {
        let (directory, token) = (tempfile::tempdir().unwrap(), Token::generate().unwrap());
        let app = AppId::new(uuid::Uuid::new_v4());
        let data_dir = directory.path().join("data");
        let config = format!(
            "data_dir = {data_dir:?}\nlog = \"info\"\n[internal]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n\
             shutdown_timeout_s = 1\n{settings}\n[[applications]]\nid = \"{app}\"\n\
             tokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            token.hash()
        );
        std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
        Self { directory, app, token }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command with the configuration to its end.
    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let config = self.path("gateway.toml");
        binary(&["--config", config.to_str().unwrap()]).args(arguments).output().unwrap()
    }

    fn start(&self, environment: &[(&str, &Path)]) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let config = self.path("gateway.toml");
        let mut command = binary(&["--config", config.to_str().unwrap()]);
        let process = Process::start(command.envs(environment.iter().copied()).stderr(log));
        let api = GatewayClient::new(process.internal(), self.app, self.token.clone()).unwrap();
        Running { process, api }
    }

    /// What the gateways of this place have logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }
}

struct Running {
    process: Process,
    api: GatewayClient,
}

impl Running {
    async fn register(&self, name: &str) -> Result<actors::ClientId, RequestError> {
        let handle = actors::ClientHandle::new(name.as_bytes()).unwrap();
        let new = NewClientBody { client_handle: HandleText(handle), tags: vec![], domain: None };
        self.api.register_client(&new).await.map(|answer| answer.client_id)
    }

    /// The status of a probe.
    async fn probe(&self, path: &str) -> u16 {
        let client = plain_http().build().unwrap();
        client.get(format!("{}{path}", self.process.internal())).send().await.unwrap().status().as_u16()
    }

    fn stop(&mut self) {
        self.process.signal("TERM");
        assert_eq!(self.process.ended(), Some(0));
    }
}

/// Says so where it is seen: a line that a test merely prints is shown only when the test fails.
fn skipped(what: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}

/// Asks again until the answer is as it must become.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn a_data_directory_that_is_deleted_ends_the_gateway() {
    let place = Place::new("");
    let mut gateway = place.start(&[]);
    gateway.register("before").await.unwrap();
    std::fs::remove_dir_all(place.path("data")).unwrap();
    // No write is acknowledged that would be lost.
    gateway.register("after").await.unwrap_err();
    assert_eq!(gateway.process.ended(), Some(1));
    assert!(place.log().contains("was deleted or moved while the gateway was running"), "{}", place.log());

    // One that is moved while nothing is written is noticed all the same.
    let mut gateway = place.start(&[]);
    std::fs::rename(place.path("data"), place.path("moved")).unwrap();
    let mut second = place.start(&[]);
    assert_eq!(gateway.process.ended(), Some(1));
    second.register("second").await.unwrap();
    second.stop();
}

#[actix_web::test]
async fn a_journal_that_has_lost_its_end_is_told_of() {
    let place = Place::new("");
    let mut gateway = place.start(&[]);
    for number in 0..20 {
        gateway.register(&format!("client {number}")).await.unwrap();
    }
    gateway.process.signal("KILL");
    assert_eq!(gateway.process.ended(), None);
    let files = std::fs::read_dir(place.path("data/store")).unwrap().map(|entry| entry.unwrap().path());
    let journal = files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap();
    let whole = std::fs::read(&journal).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&journal, &whole[..written - 1000]).unwrap();
    // It is refused, time and again, and nothing is changed.
    let cut = std::fs::read(&journal).unwrap();
    for _ in 0..2 {
        let refused = place.run(&[]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8(refused.stderr).unwrap();
        for part in ["lacks its newest writes", "import a backup", "`mimi-gateway snapshot accept-loss`"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(std::fs::read(&journal).unwrap() == cut);
    }
    let accepted = place.run(&["snapshot", "accept-loss"]);
    assert!(String::from_utf8(accepted.stdout).unwrap().starts_with("accepted: "));
    // It goes on, and says so no more.
    place.start(&[]).stop();
    assert!(!place.log().contains("lacks its newest writes"), "{}", place.log());
}

/// A library that makes syncs hang while the file named by HANG is there. `None` without a C compiler.
fn hanging_disk(directory: &Path) -> Option<PathBuf> {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <unistd.h>
        static void hang(void) { while (access(getenv("HANG"), F_OK) == 0) usleep(20000); }
        int fdatasync(int fd) { hang(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
        int fsync(int fd) { hang(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
    "#;
    let (source, library) = (directory.join("hang.c"), directory.join("hang.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

#[actix_web::test]
async fn a_disk_that_hangs_is_told_of_and_keeps_nobody_from_stopping() {
    let place = Place::new("[durability]\nwrite_timeout_s = 1\n");
    let Some(library) = hanging_disk(place.directory.path()) else {
        return skipped("a disk that hangs is not tried: there is no C compiler");
    };
    let hang = place.path("hang");
    let mut gateway = place.start(&[("LD_PRELOAD", &library), ("HANG", &hang)]);
    gateway.register("before").await.unwrap();
    std::fs::write(&hang, "").unwrap();
    let hanging = gateway.register("hanging").await.unwrap_err();
    assert_eq!(hanging.kind(), Some(ProblemKind::StorageUnavailable), "{hanging}");
    assert!(hanging.to_string().contains("unknown whether"), "{hanging}");
    assert_eq!((gateway.probe("/readyz").await, gateway.probe("/healthz").await), (503, 200));
    let refused = gateway.register("refused").await.unwrap_err();
    assert!(refused.to_string().contains("nothing was done"), "{refused}");

    // It answers again, and what was unknown is known.
    std::fs::remove_file(&hang).unwrap();
    until("it is ready", async || gateway.probe("/readyz").await == 200).await;
    let taken = gateway.register("hanging").await.unwrap_err();
    assert_eq!(taken.kind(), Some(ProblemKind::ClientHandleTaken), "{taken}");
    gateway.register("refused").await.unwrap();

    // It hangs forever: the process ends all the same, and names the part that hung.
    std::fs::write(&hang, "").unwrap();
    gateway.register("lost").await.unwrap_err();
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended(), Some(3));
    assert!(place.log().contains("did not stop within"), "{}", place.log());
    assert!(place.log().contains("the store did not end"), "{}", place.log());
    std::fs::remove_file(&hang).unwrap();
    let mut gateway = place.start(&[]);
    gateway.register("before").await.unwrap_err();
    gateway.stop();
}

#[actix_web::test]
async fn what_is_written_when_a_disk_answers_again_is_shown() {
    let place = Place::new("[durability]\nwrite_timeout_s = 1\n");
    let Some(library) = hanging_disk(place.directory.path()) else {
        return skipped("a disk that hangs is not tried: there is no C compiler");
    };
    let hang = place.path("hang");
    let mut gateway = place.start(&[("LD_PRELOAD", &library), ("HANG", &hang)]);
    let alice = gateway.register("alice").await.unwrap();
    let attributes = NewKeyQueueBody { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
    let queue = gateway.api.create_key_queue(alice, &attributes).await.unwrap().key_queue_id;
    let upload =
        KeyPackageUploadBody { key_packages: key_packages("alice", 5), ..KeyPackageUploadBody::default() };
    let held = async || gateway.api.key_queues(alice).await.unwrap().queues[0].key_packages_in_pool;
    assert_eq!(held().await, 0);

    std::fs::write(&hang, "").unwrap();
    let hanging = gateway.api.upload_key_packages(alice, queue, &upload).await.unwrap_err();
    assert!(hanging.to_string().contains("unknown whether"), "{hanging}");
    // A read meanwhile does not bring back the state before the upload.
    let (counted, ()) = tokio::join!(held(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::fs::remove_file(&hang).unwrap();
    });
    until("it is ready", async || gateway.probe("/readyz").await == 200).await;
    assert_eq!(held().await, 5, "it was {counted} while the disk hung");
    gateway.stop();
}

/// Where Debian's libfaketime is.
const FAKETIME: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

fn key_packages(name: &str, count: usize) -> Vec<Base64> {
    const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
    let crypto = RustCryptoProvider::default();
    let (secret, public) = crypto.cipher_suite_provider(SUITE).unwrap().signature_key_generate().unwrap();
    let identity = SigningIdentity::new(BasicCredential::new(name.into()).into_credential(), public);
    let client = Client::builder()
        .crypto_provider(crypto)
        .identity_provider(BasicIdentityProvider::new())
        .signing_identity(identity, secret, SUITE)
        .build();
    let package = || client.generate_key_package_message(Default::default(), Default::default(), None);
    (0..count).map(|_| Base64(package().unwrap().to_bytes().unwrap())).collect()
}

#[actix_web::test]
async fn a_clock_that_jumps_deletes_nothing() {
    let Some(library) = FAKETIME.iter().map(Path::new).find(|path| path.exists()) else {
        return skipped(
            "a clock that jumps is not tried: libfaketime (Debian package libfaketime) is not installed",
        );
    };
    let place =
        Place::new("[retention]\nperiod_s = 1\n[passivation]\nafter_s = 600\nsnapshot_period_s = 1\n");
    let offset = place.path("offset");
    std::fs::write(&offset, "+0\n").unwrap();
    let one = Path::new("1");
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &offset),
        ("FAKETIME_NO_CACHE", one),
        ("FAKETIME_DONT_FAKE_MONOTONIC", one),
        ("DONT_FAKE_MONOTONIC", one),
    ];
    let mut gateway = place.start(&environment);
    let alice = gateway.register("alice").await.unwrap();
    let attributes = NewKeyQueueBody { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
    let queue = gateway.api.create_key_queue(alice, &attributes).await.unwrap().key_queue_id;
    let upload =
        KeyPackageUploadBody { key_packages: key_packages("alice", 5), ..KeyPackageUploadBody::default() };
    gateway.api.upload_key_packages(alice, queue, &upload).await.unwrap();
    let held = async |gateway: &Running| {
        let queues = gateway.api.key_queues(alice).await.unwrap().queues;
        queues[0].key_packages_in_pool
    };
    assert_eq!(held(&gateway).await, 5);

    std::fs::write(&offset, "+400d\n").unwrap();
    until("the jump is noticed", async || place.log().contains("far from where it was expected")).await;
    assert_eq!(held(&gateway).await, 0, "by that clock they have expired");
    // Sweeps and snapshots come every second.
    tokio::time::sleep(Duration::from_secs(4)).await;
    std::fs::write(&offset, "+0\n").unwrap();
    until("the clock is right", async || held(&gateway).await == 5).await;
    gateway.stop();

    // The same over a restart: how long the gateway was away is not known.
    std::fs::write(&offset, "+400d\n").unwrap();
    let mut gateway = place.start(&environment);
    assert_eq!(held(&gateway).await, 0);
    tokio::time::sleep(Duration::from_secs(4)).await;
    gateway.stop();
    std::fs::write(&offset, "+0\n").unwrap();
    let mut gateway = place.start(&environment);
    assert_eq!(held(&gateway).await, 5);
    gateway.stop();
}
