//! Clients of a group, and the extensions that they support.

use mls_forge::{Client, Credential, Extension, ExternalSender, Lifetime, Suite, extension};

use crate::dice::Dice;

/// A type of extensions for private use.
pub(crate) const PRIVATE_EXTENSION: u16 = 0xf001;
/// A type of proposals for private use.
pub(crate) const PRIVATE_PROPOSAL: u16 = 0xf002;
pub(crate) const GREASE: [u16; 4] = [0x0a0a, 0x5a5a, 0xaaaa, 0xeaea];

/// What sets the members of a history apart from others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flavour {
    /// Clients list GREASE values, and values that nobody knows, in their capabilities.
    pub(crate) is_greased: bool,
    /// Leaves have extensions of GREASE types as well.
    pub(crate) has_greased_leaves: bool,
    /// Leaves have an application id.
    pub(crate) has_application_ids: bool,
    /// Everybody supports a proposal type for private use.
    pub(crate) has_private_proposals: bool,
    /// Everybody supports the proposals of the MLS extensions draft.
    pub(crate) has_drafts: bool,
}

impl Flavour {
    pub(crate) fn of(dice: &mut Dice) -> Self {
        let is_greased = dice.once_in(3);
        Self {
            is_greased,
            has_greased_leaves: is_greased && dice.once_in(3),
            has_application_ids: dice.once_in(6),
            has_private_proposals: dice.once_in(3),
            has_drafts: dice.once_in(4),
        }
    }
}

/// Extensions of a GroupContext that all clients of a flavour support.
pub(crate) fn context_extensions(service: &Client, flavour: Flavour, dice: &mut Dice) -> Vec<Extension> {
    let mut extensions = Vec::new();
    // openmls takes an extension of private use only if it is required.
    let mut proposals = vec![];
    if flavour.has_private_proposals && dice.once_in(2) {
        proposals.push(PRIVATE_PROPOSAL);
    }
    extensions.push(Extension::required_capabilities(&[PRIVATE_EXTENSION], &proposals, &[1]));
    if !dice.once_in(4) {
        let credential = Credential::Basic(b"service".to_vec());
        let sender = ExternalSender { signature_key: service.key.public(), credential };
        extensions.push(Extension::of(extension::EXTERNAL_SENDERS, &vec![sender]));
    }
    if dice.once_in(2) {
        extensions.push(Extension { kind: PRIVATE_EXTENSION, data: dice.bytes(3) });
    }
    extensions
}

/// Makes clients of one flavour.
pub(crate) struct Maker<'a> {
    pub(crate) suite: Suite,
    pub(crate) flavour: Flavour,
    pub(crate) lifetime: &'a Lifetime,
    pub(crate) dice: &'a mut Dice,
}

impl Maker<'_> {
    pub(crate) fn client(&mut self, name: &str) -> Client {
        let Flavour { is_greased, has_greased_leaves, has_private_proposals, has_drafts, .. } = self.flavour;
        let mut client = Client::new(self.suite, name)
            .supporting_extensions(&[PRIVATE_EXTENSION])
            .supporting_proposals(&[mls_forge::proposal::SELF_REMOVE]);
        client.lifetime = self.lifetime.clone();
        if has_private_proposals {
            client = client.supporting_proposals(&[PRIVATE_PROPOSAL]);
        }
        if has_drafts {
            let drafts = [mls_forge::proposal::APP_DATA_UPDATE, mls_forge::proposal::APP_EPHEMERAL];
            client = client.supporting_proposals(&drafts);
        }
        if is_greased {
            let grease = *self.dice.pick(&GREASE);
            let capabilities = &mut client.capabilities;
            capabilities.versions.push(grease);
            capabilities.cipher_suites.insert(0, grease);
            capabilities.extensions.push(grease);
            capabilities.proposals.push(grease);
            capabilities.credentials.push(grease);
            capabilities.credentials.push(0xf0f0);
            if has_greased_leaves {
                client.extensions.push(Extension { kind: grease, data: self.dice.bytes(2) });
            }
        }
        if self.flavour.has_application_ids {
            let id = self.dice.bytes(4);
            client.extensions.push(Extension::of(extension::APPLICATION_ID, &id));
        }
        client
    }
}
