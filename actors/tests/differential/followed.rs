//! A forged group with three observers of it: the gateway's and those of the two libraries.

use std::collections::HashMap;

use actors::{AppId, Application, CommitBundle, GroupError, Rule, Timestamp, observer::Observer};
use mls_forge::{
    Client, Content, EncryptedGroupSecrets, Forged, Group, HpkeCiphertext, Proposal, ProposalOrRef,
    PublicMessage, Sender, SigningKey, Tls as _, Welcome,
};

use crate::{
    ledger::{Ledger, Library, Said},
    libraries::{MlsRs, OpenMls, Verdict, context_of},
};

/// The types that RFC 9420 does not define and that members of a group may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Types {
    pub(crate) extensions: Vec<u16>,
    pub(crate) proposals: Vec<u16>,
}

pub(crate) struct Followed {
    pub(crate) group: Group,
    pub(crate) keys: HashMap<Vec<u8>, SigningKey>,
    pub(crate) ours: Observer,
    /// A copy of ours that lives from records alone.
    replayed: Observer,
    pub(crate) openmls: Option<OpenMls>,
    pub(crate) mls_rs: Option<MlsRs>,
    pub(crate) types: Types,
    /// What the libraries said when they could not open the group: it is said once.
    closed: Vec<(Library, String)>,
    pub(crate) now: Timestamp,
}

/// What an observer says of a message: the context that it leads to, or a refusal.
pub(crate) type Outcome = Verdict<Vec<u8>>;

fn restore(snapshot: &[u8]) -> Observer {
    Observer::restore(Application::basic(AppId::random()), snapshot).unwrap()
}

/// A refusal with its rule.
fn text(refused: GroupError) -> String {
    format!("{refused:?}")
}

impl Followed {
    pub(crate) fn open(
        group: Group,
        clients: &[Client],
        types: Types,
        now: Timestamp,
        ledger: &mut Ledger,
    ) -> Self {
        let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
        let ours = Observer::open(Application::basic(AppId::random()), &info, Some(&tree), now);
        let ours = ours.unwrap_or_else(|why| panic!("a valid group: {why:?}"));
        let replayed = restore(&ours.snapshot().unwrap());
        let keys = clients.iter().map(|client| (client.key.public(), client.key.clone())).collect();
        let (openmls, mls_rs) = (None, None);
        let mut followed =
            Self { group, keys, ours, replayed, openmls, mls_rs, types, closed: Vec::new(), now };
        followed.open_libraries(ledger);
        followed.agree();
        followed
    }

    /// Whether the libraries know the cipher suite.
    fn is_followed_by_libraries(&self) -> bool {
        self.group.suite.number() <= 3
    }

    /// Opens the libraries that do not follow the group, by what a joiner gets.
    fn open_libraries(&mut self, ledger: &mut Ledger) {
        if !self.is_followed_by_libraries() || (self.openmls.is_some() && self.mls_rs.is_some()) {
            return;
        }
        let (info, tree) = (self.group.group_info().to_message(), self.group.tree_bytes());
        let closed = |library, why: String, closed: &mut Vec<(Library, String)>, ledger: &mut Ledger| {
            if !closed.contains(&(library, why.clone())) {
                ledger.refused_by_library("a group is opened", library, &why);
                closed.push((library, why));
            }
        };
        if self.openmls.is_none() {
            match OpenMls::open(&info, &tree) {
                Ok(open) => self.openmls = Some(open),
                Err(why) => closed(Library::OpenMls, why, &mut self.closed, ledger),
            }
        }
        if self.mls_rs.is_none() {
            match MlsRs::open(&info, &tree, &self.types.extensions, &self.types.proposals) {
                Ok(open) => self.mls_rs = Some(open),
                Err(why) => closed(Library::MlsRs, why, &mut self.closed, ledger),
            }
        }
    }

    /// All that follow have the forged context and tree.
    fn agree(&self) {
        let forged = (self.group.context.to_bytes(), self.group.tree_bytes());
        assert_eq!((self.ours.context_bytes(), self.ours.tree_bytes()), forged, "the gateway's observer");
        assert_eq!((self.replayed.context_bytes(), self.replayed.tree_bytes()), forged, "from records");
        if let Some(openmls) = &self.openmls {
            assert_eq!(openmls.state(), forged, "openmls");
        }
        if let Some(mls_rs) = &self.mls_rs {
            assert_eq!(mls_rs.state(), forged, "mls-rs");
        }
    }

    /// Takes in a valid proposal, which waits then.
    pub(crate) fn propose(&mut self, what: &str, message: &PublicMessage, ledger: &mut Ledger) -> Vec<u8> {
        let packet = message.to_message();
        for observer in [&mut self.ours, &mut self.replayed] {
            let taken = observer.propose(&packet, self.now);
            taken.unwrap_or_else(|why| panic!("{}: a valid proposal, {what}: {why:?}", ledger.place()));
        }
        if let Some(openmls) = &mut self.openmls {
            let taken = openmls.proposal(&packet).and_then(|queued| openmls.add(*queued));
            if let Err(why) = taken {
                ledger.refused_by_library(what, Library::OpenMls, &why);
                self.openmls = None;
            }
        }
        if let Some(mls_rs) = &mut self.mls_rs
            && let Err(why) = mls_rs.take(&packet)
        {
            ledger.refused_by_library(what, Library::MlsRs, &why);
            self.mls_rs = None;
        }
        self.group.pend(message)
    }

    /// Takes in a valid commit.
    pub(crate) fn commit(&mut self, what: &str, forged: &Forged, ledger: &mut Ledger) {
        let packet = forged.commit_bytes();
        let bundle = CommitBundle {
            commit: packet.clone(),
            group_info: Some(forged.group_info_bytes()),
            welcome: forged.welcome_bytes(),
        };
        let staged = self.ours.stage(&bundle, self.now);
        let staged =
            staged.unwrap_or_else(|why| panic!("{}: a valid commit, {what}: {why:?}", ledger.place()));
        self.replayed.replay(&packet, &staged.record().unwrap()).unwrap();
        self.ours.apply(staged).unwrap();
        ledger.commits += 1;
        if let Some(openmls) = &mut self.openmls {
            match openmls.commit(&packet).and_then(|staged| openmls.merge(*staged)) {
                Ok(()) => ledger.followed[0] += 1,
                Err(why) => {
                    ledger.refused_by_library(what, Library::OpenMls, &why);
                    self.openmls = None;
                }
            }
        }
        if let Some(mls_rs) = &mut self.mls_rs {
            match mls_rs.take(&packet) {
                Ok(()) => ledger.followed[1] += 1,
                Err(why) => {
                    ledger.refused_by_library(what, Library::MlsRs, &why);
                    self.mls_rs = None;
                }
            }
        }
        self.group.apply(forged);
        let clients = forged.clients.iter();
        self.keys.extend(clients.map(|client| (client.key.public(), client.key.clone())));
        self.agree();
        if !self.is_over(forged) {
            self.open_libraries(ledger);
        }
        if ledger.commits.is_multiple_of(16) {
            let stored = self.ours.snapshot().unwrap();
            assert_eq!(stored, self.replayed.snapshot().unwrap(), "live and replayed state");
            let anew = restore(&stored);
            assert_eq!(anew.snapshot().unwrap(), stored, "restored state");
        }
    }

    /// Whether a commit re-initialises the group, after which nothing can follow.
    fn is_over(&self, forged: &Forged) -> bool {
        let Content::Commit(commit) = &forged.commit.content.content else { return false };
        commit.proposals.iter().any(|one| matches!(self.resolved(one), Some((_, Proposal::ReInit(_)))))
    }

    /// A proposal of a commit, looked up if it is a reference.
    fn resolved(&self, listed: &ProposalOrRef) -> Option<(Option<Sender>, Proposal)> {
        match listed {
            ProposalOrRef::Proposal(proposal) => Some((None, proposal.clone())),
            ProposalOrRef::Reference(reference) => {
                let pending = self.group.pending.iter().find(|pending| pending.reference == *reference)?;
                Some((Some(pending.sender), pending.proposal.clone()))
            }
        }
    }

    /// A Welcome for the clients that a commit adds, whatever it is.
    pub(crate) fn welcome_of(&self, message: &PublicMessage) -> Option<Vec<u8>> {
        let Content::Commit(commit) = &message.content.content else { return None };
        let suite = self.group.suite;
        let listed = commit.proposals.iter().filter_map(|listed| self.resolved(listed));
        let added = listed.filter_map(|(_, proposal)| match proposal {
            Proposal::Add(package) => Some(package.reference(suite)),
            _ => None,
        });
        let secret = |new_member| EncryptedGroupSecrets {
            new_member,
            encrypted_group_secrets: HpkeCiphertext { kem_output: vec![1; 32], ciphertext: vec![2; 64] },
        };
        let secrets: Vec<_> = added.map(secret).collect();
        let cipher_suite = suite.number();
        let welcome = Welcome { cipher_suite, secrets, encrypted_group_info: vec![3; 64] };
        (!welcome.secrets.is_empty()).then(|| welcome.to_message())
    }

    /// Compares what the observers say of a commit that may be wrong, and takes it in nowhere.
    pub(crate) fn compare_commit(&self, what: &str, message: &PublicMessage, ledger: &mut Ledger) -> Said {
        let packet = message.to_message();
        let bundle =
            CommitBundle { commit: packet.clone(), group_info: None, welcome: self.welcome_of(message) };
        let before = self.ours.context_bytes();
        let ours = self.ours.stage(&bundle, self.now).map(|staged| staged.context_bytes()).map_err(text);
        assert_eq!(self.ours.context_bytes(), before, "{what}: the state after staging");
        let openmls =
            self.openmls.as_ref().map(|openmls| openmls.commit(&packet).map(|staged| context_of(&staged)));
        let mls_rs = self.mls_rs.as_ref();
        let mls_rs = mls_rs.map(|mls_rs| mls_rs.after(&packet).map(|after| after.context()));
        ledger.compare(what, ours, [openmls, mls_rs], &packet)
    }

    /// Compares what the observers say of a proposal that may be wrong, and takes it in nowhere.
    pub(crate) fn compare_proposal(&self, what: &str, message: &PublicMessage, ledger: &mut Ledger) -> Said {
        let packet = message.to_message();
        let ours = self.ours.check_proposal(&packet, self.now).map(|_| Vec::new()).map_err(text);
        let openmls = self.openmls.as_ref().map(|openmls| openmls.proposal(&packet).map(|_| Vec::new()));
        let mls_rs = self.mls_rs.as_ref().map(|mls_rs| mls_rs.after(&packet).map(|_| Vec::new()));
        ledger.compare(what, ours, [openmls, mls_rs], &packet)
    }

    /// After a re-initialisation nothing is accepted.
    pub(crate) fn check_is_over(&self) {
        let next = self.group.commit(self.group.members()[0]).sign();
        let bundle = CommitBundle { commit: next.commit_bytes(), group_info: None, welcome: None };
        let why = self.ours.stage(&bundle, self.now).unwrap_err();
        assert!(matches!(why, GroupError::InvalidCommit { rule: Rule::NothingAfterReInit, .. }), "{why:?}");
    }

    /// Nothing that was compared has left a trace.
    pub(crate) fn check_unchanged(&self) {
        assert_eq!(self.ours.snapshot().unwrap(), self.replayed.snapshot().unwrap(), "after refusals");
    }
}
