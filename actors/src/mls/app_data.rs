//! Application data in a GroupContext (*Updating Application Data in the GroupContext* of the MLS extensions draft): the
//! `app_data_dictionary` extension after a commit with AppDataUpdates.
//!
//! The application says what an update makes of a component's data, and an observer does not know the application. It takes
//! the new data from the GroupInfo that comes with the commit, and computes the rest of the context itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Refusal, Rule,
    epoch::Listed,
    extensions::ContextExtensions,
    handshake::{Proposal, proposal_type::APP_DATA_UPDATE},
};
use crate::presentation::{Read, Reader, WireError, write_vector};

const APP_DATA_DICTIONARY: u16 = 6;

/// The data of components, by their ids.
type Dictionary<'a> = BTreeMap<u16, &'a [u8]>;

/// The components whose data a commit updates, and those whose data it removes.
#[derive(Debug, Default)]
pub(super) struct AppDataUpdates {
    updated: BTreeSet<u16>,
    removed: BTreeSet<u16>,
}

impl AppDataUpdates {
    /// Those of a commit.
    ///
    /// # Errors
    /// The data of one component are removed twice, or removed and updated.
    pub(super) fn of(listed: &[Listed<'_>]) -> Result<Self, Refusal> {
        let mut updates = Self::default();
        for Listed { proposal, reference, .. } in listed {
            let Proposal::AppDataUpdate { component, removes } = *proposal else { continue };
            let is_allowed = if removes {
                !updates.updated.contains(&component) && updates.removed.insert(component)
            } else {
                updates.updated.insert(component);
                !updates.removed.contains(&component)
            };
            if !is_allowed {
                let detail =
                    format!("the data of the component {component:#06x} are removed and changed again");
                return Err(Refusal::broken(Rule::DistinctProposals, detail).caused_by(*reference));
            }
        }
        Ok(updates)
    }

    /// The extensions after the updates. `told` are those of the new epoch as somebody tells them: the data of the updated
    /// components are taken from them, and nothing else.
    ///
    /// # Errors
    /// Data to be removed are not there, or nobody tells what the updated data are.
    pub(super) fn apply(
        &self,
        before: ContextExtensions,
        told: Option<&ContextExtensions>,
    ) -> Result<ContextExtensions, Refusal> {
        if self.updated.is_empty() && self.removed.is_empty() {
            return Ok(before);
        }
        let mut dictionary = dictionary(&before)?;
        for component in &self.removed {
            dictionary.remove(component).ok_or_else(|| nothing_to_remove(*component))?;
        }
        let told = told.map(self::dictionary).transpose()?;
        for component in &self.updated {
            let data = told.as_ref().and_then(|told| told.get(component)).ok_or_else(|| {
                let detail = format!(
                    "the commit needs a groupInfo with the data that the component {component:#06x} has after it"
                );
                Refusal::broken(Rule::Proposal, detail)
            })?;
            dictionary.insert(*component, *data);
        }
        let list = with_dictionary(&before, &written(&dictionary));
        ContextExtensions::read(&list)
            .map_err(|error| Refusal::broken(Rule::GroupContextExtensions, error.to_string()))
    }
}

/// Checks an AppDataUpdate by itself.
///
/// # Errors
/// It removes data that are not there.
pub(super) fn check_app_data_update(
    extensions: &ContextExtensions,
    component: u16,
    removes: bool,
) -> Result<(), Refusal> {
    if removes && !dictionary(extensions)?.contains_key(&component) {
        return Err(nothing_to_remove(component));
    }
    Ok(())
}

/// Checks that new GroupContext extensions leave the application data of a group that requires AppDataUpdate as they are.
///
/// # Errors
/// They do not.
pub(super) fn check_dictionary_kept(
    before: &ContextExtensions,
    after: &ContextExtensions,
) -> Result<(), Refusal> {
    let dictionary = |of: &ContextExtensions| of.for_provider().get(APP_DATA_DICTIONARY).map(<[u8]>::to_vec);
    if before.needs().required_proposals.contains(&APP_DATA_UPDATE) && dictionary(before) != dictionary(after)
    {
        let detail =
            "the group requires AppDataUpdate, so that its app_data_dictionary changes in no other way";
        return Err(Refusal::broken(Rule::GroupContextExtensions, detail));
    }
    Ok(())
}

fn nothing_to_remove(component: u16) -> Refusal {
    let detail = format!("the group has no data of the component {component:#06x} to remove");
    Refusal::broken(Rule::Proposal, detail)
}

fn dictionary(extensions: &ContextExtensions) -> Result<Dictionary<'_>, Refusal> {
    let data = extensions.for_provider().get(APP_DATA_DICTIONARY);
    data.map_or(Ok(Dictionary::new()), read_dictionary)
        .map_err(|error| Refusal::broken(Rule::GroupContextExtensions, error.to_string()))
}

/// Reads an AppDataDictionary: its entries are in ascending order, each component once.
fn read_dictionary(data: &[u8]) -> Read<Dictionary<'_>> {
    const PART: &str = "app_data_dictionary";
    let mut outer = Reader::new(data);
    let mut entries = Reader::new(outer.vector(PART)?);
    let mut dictionary = Dictionary::new();
    while !entries.is_empty() {
        let component = entries.u16(PART)?;
        let is_next = dictionary.last_key_value().is_none_or(|(last, _)| *last < component);
        dictionary.insert(component, entries.vector(PART)?);
        if !is_next {
            return Err(WireError::in_part(PART));
        }
    }
    if outer.is_empty() { Ok(dictionary) } else { Err(WireError::in_part(PART)) }
}

fn written(dictionary: &Dictionary<'_>) -> Vec<u8> {
    let mut entries = Vec::new();
    for (component, data) in dictionary {
        entries.extend_from_slice(&component.to_be_bytes());
        write_vector(&mut entries, data);
    }
    let mut out = Vec::with_capacity(entries.len() + 4);
    write_vector(&mut out, &entries);
    out
}

/// A list of extensions with another dictionary, at its place or at the end.
fn with_dictionary(extensions: &ContextExtensions, dictionary: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(extensions.bytes().len() + dictionary.len() + 8);
    let mut write = |kind: u16, data: &[u8]| {
        out.extend_from_slice(&kind.to_be_bytes());
        write_vector(&mut out, data);
    };
    let mut is_written = false;
    for (kind, data) in extensions.for_provider().iter() {
        let is_dictionary = kind == APP_DATA_DICTIONARY;
        is_written |= is_dictionary;
        write(kind, if is_dictionary { dictionary } else { data });
    }
    if !is_written {
        write(APP_DATA_DICTIONARY, dictionary);
    }
    out
}
