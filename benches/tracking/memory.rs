//! Memory of a tracked group, next to that of the two MLS libraries' own observers: the growth of the process's resident memory
//! while many groups are opened and kept. Linux only.
//!
//! `cargo bench --bench tracking_memory`. The sizes are those of `MIMI_BENCH_MEMBERS`.

#![expect(clippy::unwrap_used, reason = "a benchmark that meets what it does not expect has failed")]

use std::{hint::black_box, process::Command};

use actors::{AppId, Application, Timestamp, observer::Observer};
use mls_forge::{Group, SharedTree, Suite};
use mls_rs::{
    MlsMessage, external_client::ExternalClient, group::ExportedTree, identity::basic::BasicIdentityProvider,
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use openmls::{
    group::PublicGroup,
    prelude::{MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _, ProposalStore, RatchetTreeIn},
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::Deserialize as _;

/// As many groups as have this many members together are opened.
const MEMBERS_TOGETHER: usize = 50_000;

/// The resident memory of the process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// What a group takes for each of its members, in bytes.
fn weigh<T>(members: usize, open: impl Fn() -> T) -> usize {
    // What opening takes for a while is there already.
    let count = MEMBERS_TOGETHER.div_ceil(members);
    let first = open();
    let before = resident();
    let groups: Vec<T> = (0..count).map(|_| open()).collect();
    let grown = resident().saturating_sub(before);
    drop(black_box((first, groups)));
    grown / (count * members)
}

fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since_epoch.as_millis().try_into().unwrap())
}

/// Measures one observer; each in a process of its own, so that none uses what another has freed.
fn measure(observer: &str, members: usize) -> usize {
    let group = Group::of_members(Suite::Ed25519, members, SharedTree::Populated);
    let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
    drop(group);
    match observer {
        "gateway" => {
            let now = now();
            weigh(members, || {
                let application = Application::basic(AppId::random());
                Observer::open(application, &info, Some(&tree), now).unwrap()
            })
        }
        // openmls keeps a group twice: in its value and in its storage.
        "openmls" => weigh(members, || {
            let provider = OpenMlsRustCrypto::default();
            let MlsMessageBodyIn::GroupInfo(info) =
                MlsMessageIn::tls_deserialize_exact(&info).unwrap().extract()
            else {
                panic!("not a group info");
            };
            let tree = RatchetTreeIn::tls_deserialize_exact(&tree).unwrap();
            let (crypto, storage) = (provider.crypto(), provider.storage());
            let opened = PublicGroup::from_external(crypto, storage, tree, info, ProposalStore::new());
            (opened.unwrap().0, provider)
        }),
        _ => weigh(members, || {
            let client = ExternalClient::builder()
                .identity_provider(BasicIdentityProvider::new())
                .crypto_provider(RustCryptoProvider::default())
                .build();
            let tree = ExportedTree::from_bytes(&tree).unwrap().into_owned();
            client.observe_group(MlsMessage::from_bytes(&info).unwrap(), Some(tree), None).unwrap()
        }),
    }
}

fn main() {
    if let (Ok(observer), Ok(members)) =
        (std::env::var("MIMI_BENCH_OBSERVER"), std::env::var("MIMI_BENCH_MEMBERS"))
    {
        println!("{}", measure(&observer, members.parse().unwrap()));
        return;
    }
    let sizes = std::env::var("MIMI_BENCH_MEMBERS").unwrap_or_else(|_| "100,1000,10000".into());
    println!("bytes for each member\n members    gateway    openmls     mls-rs");
    for members in sizes.split(',') {
        let figures = ["gateway", "openmls", "mls-rs"].map(|observer| {
            let output = Command::new(std::env::current_exe().unwrap())
                .envs([("MIMI_BENCH_OBSERVER", observer), ("MIMI_BENCH_MEMBERS", members)])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        });
        let [gateway, openmls, mls_rs] = figures;
        println!("{members:>8} {gateway:>10} {openmls:>10} {mls_rs:>10}");
    }
}
