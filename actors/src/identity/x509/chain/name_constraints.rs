//! Name constraints (RFC 5280 §4.2.1.10).

use super::{
    CertificateRule,
    name_forms::{self, ComparableName},
};
use crate::identity::x509::{
    certificate::{Certificate, FoldedName, GeneralName, NameForm},
    der::{self, DerElement, DerFault, DerReader},
};

/// The most comparisons of a name with a subtree that one path may cost.
const MAX_COMPARISONS: u32 = 4096;

/// A NameConstraints. The subtrees of each list are sorted by the form of their names.
#[derive(Debug, Default)]
pub(in crate::identity::x509) struct NameConstraints {
    permitted: Vec<GeneralSubtree>,
    excluded: Vec<GeneralSubtree>,
}

/// The base of a GeneralSubtree.
#[derive(Debug)]
enum GeneralSubtree {
    Email(String),
    Dns(String),
    Directory(FoldedName),
    Uri(String),
    Ip(Vec<u8>),
    /// A form that is not processed.
    Other(NameForm),
}

impl NameConstraints {
    /// Reads the value of the extension.
    ///
    /// # Errors
    /// The fault. Constraints that are empty are one: they would not constrain anything.
    pub(in crate::identity::x509) fn new(value: &[u8]) -> Result<Self, DerFault> {
        let mut fields = der::whole_sequence(value)?;
        let permitted = fields.optional(der::constructed(0))?;
        let excluded = fields.optional(der::constructed(1))?;
        fields.end()?;
        if permitted.is_none() && excluded.is_none() {
            return Err(EMPTY);
        }
        Ok(Self { permitted: subtrees(permitted)?, excluded: subtrees(excluded)? })
    }
}

const EMPTY: DerFault = "its name constraints are empty";

fn subtrees(list: Option<DerElement<'_>>) -> Result<Vec<GeneralSubtree>, DerFault> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let mut reader = DerReader::new(list.body);
    let mut found = Vec::new();
    while !reader.is_empty() {
        let mut subtree = reader.sequence()?;
        found.push(GeneralSubtree::new(&GeneralName::new(subtree.any()?)?)?);
        // The minimum is 0, which DER leaves out, and there is no maximum.
        subtree
            .end()
            .map_err(|_| "its name constraints have a minimum or maximum, which are not supported")?;
    }
    found.sort_by_key(GeneralSubtree::form);
    if found.is_empty() { Err(EMPTY) } else { Ok(found) }
}

impl GeneralSubtree {
    fn new(base: &GeneralName<'_>) -> Result<Self, DerFault> {
        Ok(match base {
            GeneralName::Email(text) => Self::Email((*text).to_owned()),
            GeneralName::Dns(text) => Self::Dns((*text).to_owned()),
            GeneralName::Directory(name) => Self::Directory(name.folded().clone()),
            GeneralName::Uri(text) => Self::Uri((*text).to_owned()),
            GeneralName::Ip(bytes) if name_forms::is_network(bytes) => Self::Ip(bytes.to_vec()),
            GeneralName::Ip(_) => {
                return Err("its name constraints have an IP address without a mask of leading bits");
            }
            GeneralName::Other(form, _) => Self::Other(*form),
        })
    }

    fn form(&self) -> NameForm {
        match self {
            Self::Email(_) => NameForm::Email,
            Self::Dns(_) => NameForm::Dns,
            Self::Directory(_) => NameForm::Directory,
            Self::Uri(_) => NameForm::Uri,
            Self::Ip(_) => NameForm::Ip,
            Self::Other(form) => *form,
        }
    }

    /// Whether it contains a name; one of another form it does not.
    fn contains(&self, name: &ComparableName<'_>, is_excluded: bool) -> bool {
        match (self, name) {
            (Self::Directory(subtree), ComparableName::Directory(name)) => name.is_within(subtree),
            (Self::Dns(subtree), ComparableName::Dns(name)) => name.is_within(subtree, is_excluded),
            (Self::Ip(subtree), ComparableName::Ip(address)) => name_forms::is_ip_within(address, subtree),
            (Self::Email(subtree), ComparableName::Email(name)) => name.is_within(subtree),
            (Self::Uri(subtree), ComparableName::UriHost(host)) => name_forms::is_host_within(host, subtree),
            (
                Self::Directory(_)
                | Self::Dns(_)
                | Self::Ip(_)
                | Self::Email(_)
                | Self::Uri(_)
                | Self::Other(_),
                _,
            ) => false,
        }
    }
}

/// The subtrees of one form.
fn of_form(subtrees: &[GeneralSubtree], form: NameForm) -> &[GeneralSubtree] {
    let start = subtrees.partition_point(|subtree| subtree.form() < form);
    let end = subtrees.partition_point(|subtree| subtree.form() <= form);
    subtrees.get(start..end).unwrap_or_default()
}

/// The constraints above a certificate, from the root down.
pub(super) struct ConstraintsAbove<'r> {
    of_root: Option<&'r NameConstraints>,
    of_issuers: Vec<NameConstraints>,
    /// The comparisons that are left.
    comparisons: u32,
}

impl<'r> ConstraintsAbove<'r> {
    pub(super) fn new(of_root: Option<&'r NameConstraints>) -> Self {
        Self { of_root, of_issuers: Vec::new(), comparisons: MAX_COMPARISONS }
    }

    /// §6.1.4 (g).
    pub(super) fn descend(&mut self, issuer: &Certificate<'_>) -> Result<(), CertificateRule> {
        if let Some(value) = issuer.extensions.name_constraints {
            self.of_issuers.push(NameConstraints::new(value).map_err(CertificateRule::Malformed)?);
        }
        Ok(())
    }

    /// §6.1.3 (b) and (c).
    pub(super) fn check(&mut self, certificate: &Certificate<'_>) -> Result<(), CertificateRule> {
        if self.of_root.is_none() && self.of_issuers.is_empty() {
            return Ok(());
        }
        let mut names = match certificate.extensions.alternative_names {
            None => Vec::new(),
            Some(value) => der::whole(value, der::SEQUENCE)
                .and_then(GeneralName::all)
                .map_err(CertificateRule::Malformed)?,
        };
        let subject = &certificate.subject;
        if !subject.is_empty() {
            names.push(GeneralName::Directory(subject.clone()));
        }
        // RFC 5280 looks at these only where there are no alternative names; a name is a name.
        let emails = subject.emails().map_err(CertificateRule::Malformed)?;
        names.extend(emails.into_iter().map(GeneralName::Email));
        names.iter().try_for_each(|name| self.check_name(name))
    }

    fn check_name(&mut self, name: &GeneralName<'_>) -> Result<(), CertificateRule> {
        let (form, comparable) = (name.form(), ComparableName::new(name));
        for constraints in self.of_root.into_iter().chain(&self.of_issuers) {
            let permitted = of_form(&constraints.permitted, form);
            let excluded = of_form(&constraints.excluded, form);
            let cost = u32::try_from(1 + permitted.len() + excluded.len()).unwrap_or(u32::MAX);
            self.comparisons =
                self.comparisons.checked_sub(cost).ok_or(CertificateRule::TooManyComparisons)?;
            if permitted.is_empty() && excluded.is_empty() {
                continue;
            }
            let Some(name) = &comparable else { return Err(CertificateRule::ConstraintNotSupported(form)) };
            let is_in = |subtrees: &[GeneralSubtree], is_excluded| {
                subtrees.iter().any(|subtree| subtree.contains(name, is_excluded))
            };
            if is_in(excluded, true) || (!permitted.is_empty() && !is_in(permitted, false)) {
                return Err(CertificateRule::NameConstraints(form));
            }
        }
        Ok(())
    }
}
