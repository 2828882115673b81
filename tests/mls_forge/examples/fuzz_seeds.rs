//! Seeds for the fuzz targets of the observer, of deliveries and of ratchet trees: short lives of forged groups, and trees, in the forms
//! that they read; and for those of paths, bodies and requests: the requests that the OpenAPI document shows. The argument is the folder
//! `fuzz/seeds`.

#[path = "fuzz_seeds/requests.rs"]
mod requests;

use std::{error::Error, fs, path::PathBuf};

use mls_forge::{
    Client, Extension, Forged, Group, Lifetime, PathChoice, Proposal, PublicMessage, ReInit, Sender,
    SharedTree, Suite,
};

/// When the seeds are valid, in Unix seconds: the time of the fuzz target.
const NOW_S: u64 = 1_800_000_000;

fn client(suite: Suite, name: &str) -> Client {
    let client = Client::new(suite, name);
    let client = client.supporting_extensions(&[0x0a0a, 0xf001]).supporting_proposals(&[10, 0xf002]);
    Client { lifetime: Lifetime::around(NOW_S), ..client }
}

/// The parts of an input.
#[derive(Default)]
struct Seed(Vec<u8>);

impl Seed {
    fn part(&mut self, kind: u8, bytes: &[u8]) {
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        self.0.push(kind);
        self.0.extend(length.to_be_bytes());
        self.0.extend(bytes);
    }

    fn of(group: &Group) -> Self {
        let mut seed = Self::default();
        seed.part(0, &group.group_info().to_message());
        seed.part(1, &group.tree_bytes());
        seed
    }

    fn proposal(&mut self, message: &PublicMessage) {
        self.part(2, &message.to_message());
    }

    fn commit(&mut self, group: &mut Group, forged: &Forged) {
        self.part(0, &forged.group_info_bytes());
        if let Some(welcome) = forged.welcome_bytes() {
            self.part(4, &welcome);
        }
        self.part(3, &forged.commit_bytes());
        group.apply(forged);
    }
}

/// A group of three that grows, shrinks and ends.
fn life(suite: Suite, shared: SharedTree) -> Seed {
    let clients = ["one", "two", "three"].map(|name| client(suite, name));
    let extensions = vec![Extension { kind: 0xf001, data: vec![7] }];
    let mut group = Group::of_clients_with(clients.to_vec(), shared, extensions);
    let mut seed = Seed::of(&group);
    let newcomer = client(suite, "four");
    let add = group.add(&newcomer);
    let forged = group.commit(0).with(add).path(PathChoice::Without).sign();
    seed.commit(&mut group, &forged);
    let update = group.update(1);
    let message = group.propose(Sender::Member(1), update);
    seed.proposal(&message);
    let message = group.propose(Sender::Member(2), Proposal::SelfRemove);
    seed.proposal(&message);
    let forged = group.commit(3).with_pending().with(Proposal::external_psk(suite, b"key")).sign();
    seed.commit(&mut group, &forged);
    let forged = group.external_commit(&newcomer).with(Proposal::Remove(3)).sign();
    seed.commit(&mut group, &forged);
    let required = Extension::required_capabilities(&[0xf001], &[10], &[1]);
    let extensions = Proposal::GroupContextExtensions(vec![required]);
    let forged = group.commit(0).with(extensions).with(Proposal::Remove(1)).sign();
    seed.commit(&mut group, &forged);
    let forged = group.commit(0).with(Proposal::Other(0xf002, vec![1, 7])).sign();
    seed.commit(&mut group, &forged);
    let (group_id, cipher_suite) = (vec![8; 16], suite.number());
    let reinit = Proposal::ReInit(ReInit { group_id, version: 1, cipher_suite, extensions: Vec::new() });
    let forged = group.commit(0).with(reinit).sign();
    seed.commit(&mut group, &forged);
    seed
}

fn main() -> Result<(), Box<dyn Error>> {
    let seeds = PathBuf::from(std::env::args().nth(1).ok_or("the folder is missing")?);
    let (folder, trees) = (seeds.join("observer"), seeds.join("ratchet_tree"));
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&trees)?;
    for suite in Suite::ALL {
        for (name, shared) in [("blank", SharedTree::Blank), ("populated", SharedTree::Populated)] {
            if shared == SharedTree::Blank && suite.number() > 2 {
                continue;
            }
            let file = folder.join(format!("suite-{}-{name}", suite.number()));
            fs::write(file, life(suite, shared).0)?;
        }
        let clients = ["one", "two", "three", "four", "five"].map(|name| client(suite, name));
        let group = Group::of_clients(clients.to_vec(), SharedTree::Populated);
        let tree = [vec![u8::try_from(suite.number())?], group.tree_bytes()].concat();
        fs::write(trees.join(format!("suite-{}", suite.number())), tree)?;
        let mut seed = Seed::default();
        seed.part(5, &client(suite, "alone").key_package().to_message());
        fs::write(folder.join(format!("suite-{}-key-package", suite.number())), seed.0)?;
    }
    requests::write(&seeds)
}
