//! Applications: identities, domains and peers (*Applications*).

use std::{collections::BTreeSet, sync::Arc};

use snapshots::{AppId, DomainName, Quotas};

use crate::{
    external_sender::ExternalSenderKey,
    identity::{BasicIdentityProvider, IdentityProvider},
};

/// One application of this gateway, as the configuration names it.
#[derive(Clone)]
pub struct Application {
    /// The draft's ApplicationID.
    pub id: AppId,
    /// The identity provider of its clients.
    pub identity: Arc<dyn IdentityProvider>,
    /// Whether the identity configuration sets `supports_domains`: clients then belong to a domain.
    pub supports_domains: bool,
    /// The domains assigned to this gateway, lower case.
    pub domains: BTreeSet<DomainName>,
    /// The domains of the gateways that the application federates with.
    pub federates_with: Arc<BTreeSet<DomainName>>,
    /// The treatment of a commit that keeps members whose credentials have expired.
    pub expired_members: ExpiredMembers,
    /// The keys by which the gateway proposes the removal of such members; at most one is used in a group, the first that
    /// its `external_senders` extension names.
    pub external_senders: Arc<[ExternalSenderKey]>,
    /// The most that it may have here.
    pub quotas: Quotas,
}

crate::choices! {
    /// The treatment of a commit that keeps members whose credentials have expired (*Handing Timestamps*). Except with
    /// `Ignore`, such members can only renew their credentials.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum ExpiredMembers {
        /// Accepts the commit, and proposes their removal in the epoch that it creates.
        #[default]
        Propose = "propose",
        /// Refuses the commit, if it had room to remove them, and proposes their removal in the present epoch.
        Refuse = "refuse",
        /// Accepts the commit and proposes nothing.
        Ignore = "ignore",
    }
}

/// The sender of a packet; it determines the domains to which the packet's new clients may belong (*Key Package
/// Validation*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An application server of this gateway.
    Application,
    /// The gateway to which these domains are assigned: it forwards a packet of its application server.
    Peer(BTreeSet<DomainName>),
    /// The group's hub, which has accepted the packet already.
    Hub,
}

impl Application {
    /// An application of the Basic identity provider, which has neither domains nor expiry.
    pub fn basic(id: AppId) -> Self {
        Self {
            id,
            identity: Arc::new(BasicIdentityProvider),
            supports_domains: false,
            domains: BTreeSet::new(),
            federates_with: Arc::default(),
            expired_members: ExpiredMembers::default(),
            external_senders: Arc::default(),
            quotas: Quotas::default(),
        }
    }

    /// Whether this gateway orders the groups of this hub; an application without domains has no other.
    pub fn is_hub(&self, hub: Option<&DomainName>) -> bool {
        hub.is_none_or(|hub| self.domains.contains(hub))
    }

    /// Whether it federates with a gateway of these domains.
    pub fn federates_with_any(&self, domains: &BTreeSet<DomainName>) -> bool {
        !self.federates_with.is_disjoint(domains)
    }

    /// The domain of a client registered here: the one that is given, else the gateway's only domain.
    ///
    /// # Errors
    /// [`DomainError::NotAssigned`] for another gateway's domain, [`DomainError::Required`] when none is given and the gateway
    /// has several.
    pub fn client_domain(&self, given: Option<DomainName>) -> Result<Option<DomainName>, DomainError> {
        match (given, self.supports_domains) {
            (Some(domain), _) if !self.domains.contains(&domain) => Err(DomainError::NotAssigned { domain }),
            (Some(domain), true) => Ok(Some(domain)),
            (Some(_) | None, false) => Ok(None),
            (None, true) => match (self.domains.first(), self.domains.len()) {
                (Some(only), 1) => Ok(Some(only.clone())),
                _ => Err(DomainError::Required),
            },
        }
    }

    /// Whether the sender may bring in a client of this domain itself: as the creator of a group, by a proposal or by an
    /// external commit. A sender speaks for the domains that are assigned to it, and the log of a hub for all.
    pub(crate) fn speaks_for(&self, source: &Source, domain: Option<&DomainName>) -> bool {
        match source {
            Source::Application => domain.is_none_or(|domain| self.domains.contains(domain)),
            Source::Peer(assigned) => domain.is_none_or(|domain| assigned.contains(domain)),
            // The hub has checked this for its own sender.
            Source::Hub => true,
        }
    }

    /// Whether a commit may add a client of this domain: one of this gateway's, or of those that the application federates
    /// with. Members invite across domains (*Operational Context*), so the committer's own domain does not matter.
    pub(crate) fn knows(&self, domain: Option<&DomainName>) -> bool {
        domain.is_none_or(|domain| self.domains.contains(domain) || self.federates_with.contains(domain))
    }

    /// Whether clients of this domain are registered here, and not at another gateway.
    pub(crate) fn hosts(&self, domain: Option<&DomainName>) -> bool {
        domain.is_none_or(|domain| self.domains.contains(domain))
    }
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application")
            .field("id", &self.id)
            .field("supports_domains", &self.supports_domains)
            .field("domains", &self.domains)
            .field("federates_with", &self.federates_with)
            .field("expired_members", &self.expired_members)
            .finish_non_exhaustive()
    }
}

/// The reason why a `domain` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The domain belongs to another gateway, or to none.
    #[error("the domain {domain} is not assigned to this gateway")]
    NotAssigned {
        /// The domain.
        domain: DomainName,
    },
    /// The application uses domains and the request names none.
    #[error("this application uses domains: name one with `domain`")]
    Required,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_packet_decides_whom_it_may_bring_in() {
        let names = |names: &[&str]| names.iter().map(|name| DomainName::new(name).unwrap()).collect();
        let mut application = Application::basic(AppId::random());
        application.supports_domains = true;
        application.domains = names(&["a.example", "aa.example"]);
        application.federates_with = Arc::new(names(&["b.example", "c.example"]));
        let peer = Source::Peer(names(&["b.example"]));
        for (domain, [own, of_peer, of_hub, added, hosted]) in [
            ("a.example", [true, false, true, true, true]),
            ("aa.example", [true, false, true, true, true]),
            ("b.example", [false, true, true, true, false]),
            ("c.example", [false, false, true, true, false]),
            ("d.example", [false, false, true, false, false]),
        ] {
            let domain = DomainName::new(domain).unwrap();
            let speaks_for = |source| application.speaks_for(source, Some(&domain));
            assert_eq!(
                [speaks_for(&Source::Application), speaks_for(&peer), speaks_for(&Source::Hub)],
                [own, of_peer, of_hub],
                "{domain}"
            );
            assert_eq!(application.knows(Some(&domain)), added, "{domain}");
            assert_eq!(application.hosts(Some(&domain)), hosted, "{domain}");
        }
        for source in [&Source::Application, &peer, &Source::Hub] {
            assert!(application.speaks_for(source, None), "an application without domains");
        }
    }
}
