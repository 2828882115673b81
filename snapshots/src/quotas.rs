//! Quotas of an application, and how much it has of what they limit.

use std::fmt;

/// What an application has, and its quotas limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Registered clients.
    Clients,
    /// Groups, replicas of those that another gateway orders included.
    Groups,
    /// Key packages in queues, assigned ones and final keys included.
    KeyPackages,
    /// Bytes of stored messages and states.
    Bytes,
}

/// How much an application has of each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage([u64; Resource::ALL.len()]);

/// The most that an application may have of each resource; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas([Option<u64>; Resource::ALL.len()]);

/// A quota that a batch would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the application may have at most {max} {resource}")]
pub struct QuotaExceeded {
    /// The resource.
    pub resource: Resource,
    /// The quota.
    pub max: u64,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Clients, Self::Groups, Self::KeyPackages, Self::Bytes];

    /// Its name in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Groups => "groups",
            Self::KeyPackages => "key packages",
            Self::Bytes => "bytes",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Clients => 0,
            Self::Groups => 1,
            Self::KeyPackages => 2,
            Self::Bytes => 3,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Usage {
    /// How much there is of a resource.
    pub fn of(&self, resource: Resource) -> u64 {
        self.0.get(resource.place()).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, resource: Resource, more: i64) {
        if let Some(amount) = self.0.get_mut(resource.place()) {
            *amount = amount.saturating_add_signed(more);
        }
    }

    /// The amounts in the order of [`Resource::ALL`].
    pub(crate) const fn amounts(self) -> [u64; Resource::ALL.len()] {
        self.0
    }

    /// The usage of these amounts.
    pub(crate) const fn of_amounts(amounts: [u64; Resource::ALL.len()]) -> Self {
        Self(amounts)
    }
}

impl Quotas {
    /// The most that there may be of a resource.
    pub fn of(&self, resource: Resource) -> Option<u64> {
        self.0.get(resource.place()).copied().flatten()
    }

    /// The same quotas with this one of a resource.
    #[must_use]
    pub fn with(mut self, resource: Resource, max: Option<u64>) -> Self {
        if let Some(quota) = self.0.get_mut(resource.place()) {
            *quota = max;
        }
        self
    }

    /// The first quota that is exceeded by a resource of which there is more than before.
    pub(crate) fn exceeded(&self, before: &Usage, after: &Usage) -> Option<QuotaExceeded> {
        Resource::ALL.into_iter().find_map(|resource| {
            let max = self.of(resource)?;
            let (before, after) = (before.of(resource), after.of(resource));
            (after > before && after > max).then_some(QuotaExceeded { resource, max })
        })
    }
}
