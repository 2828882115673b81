//! Applications: whose clients, queues and groups the gateway keeps (*Applications*).

use std::{collections::BTreeSet, sync::Arc};

use snapshots::{AppId, DomainName};

use crate::identity::IdentityProvider;

/// One application of this gateway, as the configuration names it.
#[derive(Clone)]
pub struct Application {
    /// The draft's ApplicationID.
    pub id: AppId,
    /// How the application's clients are identified.
    pub identity: Arc<dyn IdentityProvider>,
    /// Whether the identity configuration sets `supports_domains`: clients then belong to a domain.
    pub supports_domains: bool,
    /// The domains assigned to this gateway, lower case.
    pub domains: BTreeSet<DomainName>,
    /// The domains of the gateways that it federates with; none of this gateway's own.
    pub federates_with: Arc<BTreeSet<DomainName>>,
}

impl Application {
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
    /// Says why there is no such domain: it is another gateway's, there are several to choose from, or the
    /// application does not use domains.
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
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application")
            .field("id", &self.id)
            .field("supports_domains", &self.supports_domains)
            .field("domains", &self.domains)
            .field("federates_with", &self.federates_with)
            .finish_non_exhaustive()
    }
}

/// Why a `domain` could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The domain belongs to another gateway, or to none.
    #[error("the domain {domain} is not assigned to this gateway")]
    NotAssigned {
        /// The domain that was asked for.
        domain: DomainName,
    },
    /// The application uses domains and the request names none.
    #[error("this application uses domains: name one with `domain`")]
    Required,
}
