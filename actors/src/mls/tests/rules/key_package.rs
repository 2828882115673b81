//! Key packages (RFC 9420 §10, §10.1): uploaded, proposed and committed.

use mls_forge::{Client, Extension, KeyPackage, LeafNodeSource, Lifetime};

use super::{
    Answers, PRIVATE_USE, Scene, UNLISTED, client, handshake, rules,
    scene::{GREASE, package_everywhere},
};

/// A package that is changed, and then signed with its leaf.
fn changed(change: impl Fn(&mut KeyPackage)) -> Answers {
    package_everywhere(|| {
        let newcomer = client("newcomer");
        let mut package = newcomer.key_package();
        change(&mut package);
        package.sign_all(&newcomer.key);
        (newcomer, package)
    })
}

fn signature(broken: bool) -> Answers {
    package_everywhere(|| {
        let newcomer = client("newcomer");
        let mut package = newcomer.key_package();
        if broken {
            package.sign(&client("another").key);
        }
        (newcomer, package)
    })
}

/// A package with this lifetime, relative to now.
fn lifetime(before_s: i64, after_s: i64) -> Answers {
    let at = |offset_s: i64| now_s().checked_add_signed(offset_s).unwrap();
    package_everywhere(|| {
        let mut newcomer = client("newcomer");
        newcomer.lifetime = Lifetime { not_before: at(before_s), not_after: at(after_s) };
        let package = newcomer.key_package();
        (newcomer, package)
    })
}

fn now_s() -> u64 {
    crate::clock::Clock::system().now().0 / 1000
}

/// An Add whose package has a longer total lifetime than the application's limit.
fn total_lifetime(broken: bool) -> Answers {
    let mut it = Scene::new(2);
    it.observer.validator.limits.key_package_lifetime_s_max = 3600;
    let mut newcomer: Client = client("newcomer");
    let not_before = now_s() - 60;
    newcomer.lifetime = Lifetime { not_before, not_after: not_before + if broken { 3601 } else { 3600 } };
    let add = it.group.add(&newcomer);
    let forged = it.group.commit(0).with(add).sign();
    handshake(it.commit(&forged))
}

rules! {
    package_cipher_suite ("§10.1", "proposal"):
        "A key package is of the group's, or its queue's, cipher suite.",
        accepted: "It is, and its leaf supports others.",
        |broken| changed(|package| {
            package.leaf_node.capabilities.cipher_suites = vec![1, 3];
            package.cipher_suite = if broken { 3 } else { 1 };
        });
    package_version ("§10.1", "proposal"):
        "A key package is of the group's protocol version.",
        accepted: "It is, and its leaf supports others.",
        |broken| changed(|package| {
            package.leaf_node.capabilities.versions = vec![2, 1];
            package.version = if broken { 2 } else { 1 };
        });
    package_signature ("§10.1", "proposal"):
        "A key package is signed with its leaf's signature key.",
        accepted: "It is.",
        signature;
    package_source ("§7.3, §10", "leaf-node"):
        "The leaf of a key package has the source `key_package`.",
        accepted: "It has.",
        |broken| changed(|package| {
            if broken {
                package.leaf_node.source = LeafNodeSource::Update;
            }
        });
    package_keys ("§10.1", "distinct-keys"):
        "The `init_key` of a key package differs from its leaf's `encryption_key`.",
        accepted: "Two keys.",
        |broken| changed(|package| {
            if broken {
                package.init_key.clone_from(&package.leaf_node.encryption_key);
            }
        });
    package_init_key_usable ("§5.1.1; RFC 9180 §7.1", "proposal"):
        "The `init_key` of a key package is a public key of the suite to which a committer can encrypt.",
        accepted: "A key of the suite.",
        |broken| changed(|package| {
            if broken {
                package.init_key = vec![0; 32];
            }
        });
    package_extensions ("§10", "capabilities"):
        "The types of a key package's extensions are among its leaf's capabilities.",
        accepted: "The type is listed.",
        |broken| changed(|package| {
            package.extensions = vec![Extension { kind: UNLISTED, data: vec![1] }];
            package.leaf_node.capabilities.extensions.extend((!broken).then_some(UNLISTED));
        });
    package_extensions_that_mean_nothing ("§10, §13.5", "capabilities"):
        "That holds for GREASE extensions, too.",
        accepted: "The GREASE type is listed.",
        |broken| changed(|package| {
            package.extensions = vec![Extension { kind: GREASE, data: vec![1, 2, 3] }];
            package.leaf_node.capabilities.extensions.extend((!broken).then_some(GREASE));
        });
    package_extensions_once ("§13.4", "malformed-mls-message"):
        "A key package has at most one extension of a type.",
        accepted: "One.",
        |broken| changed(|package| {
            let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
            package.extensions = vec![extension; if broken { 2 } else { 1 }];
        });
    package_expired ("§7.3, §10.1", "lifetime"):
        "The lifetime of an added key package has not ended.",
        accepted: "It ends in a minute.",
        |broken| lifetime(-7200, if broken { -2 } else { 60 });
    package_not_begun ("§7.3, §10.1", "lifetime"):
        "The lifetime of an added key package has begun, or does so within the permitted clock skew.",
        accepted: "It began a moment ago.",
        |broken| lifetime(if broken { 3600 } else { -2 }, 7200);
    package_total_lifetime ("§7.2", "lifetime"):
        "The total lifetime of a leaf is at most the limit `key_package_lifetime_s_max`.",
        accepted: "A lifetime of just that length.",
        total_lifetime;
    package_lifetime_backwards ("§7.2", "leaf-node"):
        "A lifetime begins before it ends.",
        accepted: "It begins and ends in the same second, which is now or to come.",
        |broken| {
            let end = 60;
            let mut answers = lifetime(if broken { end + 1 } else { -60 }, end);
            // Whether an uploaded package is before its time is asked first.
            answers.retain(|(way, _)| !broken || *way != super::Way::Upload);
            answers
        };
}
