//! Certificate policies, beyond what NIST's suite has.

use super::{
    der::{extension, tlv},
    *,
};

/// The policy 1.2.`number`.
fn policy(number: u8) -> Vec<u8> {
    tlv(6, &[[0x2a, number]])
}

fn any() -> Vec<u8> {
    tlv(6, &[[0x55, 0x1d, 0x20, 0]])
}

fn policies(policies: &[Vec<u8>]) -> CustomExtension {
    let information: Vec<Vec<u8>> = policies.iter().map(|policy| tlv(0x30, &[policy])).collect();
    extension(32, true, tlv(0x30, &information))
}

fn mappings(pairs: &[(Vec<u8>, Vec<u8>)]) -> CustomExtension {
    let pairs: Vec<Vec<u8>> = pairs.iter().map(|(from, to)| tlv(0x30, &[from, to])).collect();
    extension(33, true, tlv(0x30, &pairs))
}

/// policyConstraints: an explicit policy is required from here on.
fn explicit() -> CustomExtension {
    extension(36, true, tlv(0x30, &[[0x80, 1, 0]]))
}

/// The verdict on a chain of CAs with these extensions, the highest first, and a leaf.
fn verdict(cas: &[Vec<CustomExtension>], device: Vec<CustomExtension>) -> Result<(), ChainError> {
    let root = Entity::root(ca("root"));
    let mut chain: Vec<Entity> = Vec::new();
    for (place, extensions) in cas.iter().enumerate() {
        let mut params = ca(&format!("ca {place}"));
        params.custom_extensions.clone_from(extensions);
        let next = chain.last().unwrap_or(&root).issue(params);
        chain.push(next);
    }
    let mut params = leaf("device");
    params.custom_extensions = device;
    let device = chain.last().unwrap_or(&root).issue(params);
    chain.push(device);
    let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
    let ders: Vec<&[u8]> = chain.iter().rev().map(|entity| entity.der.as_slice()).collect();
    store.validate(&ders, NOW)
}

#[test]
fn a_policy_is_left_where_one_is_required() {
    let none = || broken(0, CertificateRule::Policy);
    let one = |number| vec![policies(&[policy(number)])];
    let requiring = |number| vec![policies(&[policy(number)]), explicit()];
    assert_eq!(verdict(&[one(1)], one(2)), Ok(()), "nobody requires one");
    assert_eq!(verdict(&[requiring(1)], one(1)), Ok(()));
    assert_eq!(verdict(&[requiring(1)], one(2)), none());
    assert_eq!(verdict(&[requiring(1)], vec![]), none());
    assert_eq!(verdict(&[requiring(1)], vec![policies(&[any()])]), Ok(()));
    assert_eq!(verdict(&[vec![policies(&[any()]), explicit()]], one(7)), Ok(()));
    // anyPolicy is inhibited below the highest CA.
    let inhibit = extension(54, true, vec![2, 1, 0]);
    let inhibiting = [vec![policies(&[any()]), explicit(), inhibit]];
    assert_eq!(verdict(&inhibiting, vec![policies(&[any()])]), none());
    assert_eq!(verdict(&inhibiting, one(7)), Ok(()));
    // Mapped, not mapped, and mapped where that is inhibited.
    let mapping =
        |extension: Vec<CustomExtension>| [extension, vec![mappings(&[(policy(1), policy(2))])]].concat();
    assert_eq!(verdict(&[mapping(requiring(1))], one(2)), Ok(()));
    assert_eq!(verdict(&[mapping(requiring(1))], one(1)), none());
    let no_mapping = extension(36, true, tlv(0x30, &[[0x80, 1, 0], [0x81, 1, 0]]));
    let above = vec![policies(&[policy(1)]), no_mapping];
    assert_eq!(verdict(&[above, mapping(one(1))], one(2)), none());
}

#[test]
fn policies_that_cannot_be_meant_are_refused() {
    let at_ca = |extension: CustomExtension, rule| {
        assert_eq!(verdict(&[vec![extension]], vec![]), broken(1, rule));
    };
    let malformed = CertificateRule::Malformed;
    at_ca(mappings(&[(any(), policy(1))]), CertificateRule::PolicyMapping);
    at_ca(mappings(&[(policy(1), any())]), CertificateRule::PolicyMapping);
    at_ca(mappings(&[]), malformed("its policy mappings are empty"));
    at_ca(policies(&[]), malformed("its policies are empty"));
    at_ca(policies(&[policy(1), policy(1)]), malformed("it has a policy twice"));
    at_ca(extension(36, true, tlv::<Vec<u8>>(0x30, &[])), malformed("its policy constraints are empty"));
    at_ca(extension(54, true, vec![2, 1, 0xff]), malformed("a number is negative"));
    let many: Vec<Vec<u8>> =
        (0..257u16).map(|n| tlv(6, &[[0x2a, 0x81 + (n >> 7) as u8, (n & 0x7f) as u8]])).collect();
    at_ca(policies(&many), malformed("it has too many policies"));
}

/// The shape of CVE-2023-0464: in a tree, six CAs that map each of 18 policies to all of them would be 18⁶ nodes.
#[test]
fn mappings_do_not_multiply() {
    let all: Vec<Vec<u8>> = (0..18).map(policy).collect();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> =
        all.iter().flat_map(|from| all.iter().map(|to| (from.clone(), to.clone()))).collect();
    let ca = vec![policies(&all), mappings(&pairs), explicit()];
    assert_eq!(verdict(&vec![ca.clone(); 6], vec![policies(&[policy(3)])]), Ok(()));
    assert_eq!(verdict(&vec![ca; 6], vec![policies(&[policy(19)])]), broken(0, CertificateRule::Policy));
}
