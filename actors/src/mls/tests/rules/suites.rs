//! A history in each cipher suite (RFC 9420 §17.1), with signatures that are right or wrong at every step.

use mls_forge::{Client, Extension, Forged, Group, GroupInfo, Proposal, Sender, Suite};

use super::{Answers, Scene, Way, answer, creation, opening, rules, scene::open_by};

/// A group of one suite, as its history goes on: each message is tried with a signature by another key, and with one that is
/// damaged, and then as it should be.
struct History {
    it: Scene,
    broken: bool,
    answers: Answers,
    another: Client,
}

impl History {
    /// A commit, whose signature is by another key or damaged if that is what is tried, and which goes on in any case.
    fn commit(&mut self, step: &'static str, forged: &Forged) {
        for wrong in self.wrong(forged) {
            let answer = self.it.commit(&wrong).map_err(answer);
            self.answers.push((Way::Handshake(step), answer));
        }
        if !self.broken {
            let answer = self.it.commit(forged).map_err(answer);
            self.answers.push((Way::Handshake(step), answer));
            self.it.group.apply(forged);
        } else {
            self.it.proceed(forged);
        }
    }

    fn wrong(&self, forged: &Forged) -> Vec<Forged> {
        if !self.broken {
            return Vec::new();
        }
        let (mut by_another, mut damaged) = (forged.clone(), forged.clone());
        by_another.commit.sign(&self.another.key, &self.it.group.context);
        *damaged.commit.signature.last_mut().unwrap() ^= 1;
        vec![by_another, damaged]
    }
}

/// A client is created, two are added, one of whom is removed by the other; that one updates its leaf, another joins, and
/// comes back.
fn history(suite: Suite, broken: bool) -> Answers {
    let client = |name: &str| Client::new(suite, name);
    let another = client("another");
    let group = Group::create(client("alice"));
    let mut answers = creation::create(&group);
    if broken {
        answers = Vec::new();
        let mut info: GroupInfo = group.group_info();
        info.sign(&another.key);
        answers.extend(opening(open_by(&info.to_message(), Some(&group.tree_bytes()))));
    }
    let mut history = History { it: Scene::of(group), broken, answers, another };

    let adds = ["bob", "carol"].map(|name| history.it.group.add(&client(name)));
    let forged = history.it.group.commit(0).with_all(adds).sign();
    history.commit("an Add", &forged);

    let update = history.it.group.update(1);
    let message = history.it.group.propose(Sender::Member(1), update);
    if broken {
        let mut wrong = message.clone();
        wrong.sign(&history.another.key, &history.it.group.context);
        let answer = history.it.propose(&wrong).map_err(answer);
        history.answers.push((Way::Handshake("a proposed Update"), answer));
    }
    history.it.propose(&message).unwrap();
    let forged = history.it.group.commit(0).with_pending().sign();
    history.commit("an Update", &forged);

    let forged = history.it.group.commit(1).with(Proposal::Remove(2)).sign();
    history.commit("a Remove", &forged);

    let extensions = Proposal::GroupContextExtensions(vec![Extension::required_capabilities(&[], &[], &[1])]);
    let forged = history.it.group.commit(0).with(extensions).sign();
    history.commit("GroupContextExtensions", &forged);

    let joiner = client("dave");
    let forged = history.it.group.external_commit(&joiner).sign();
    history.commit("an external commit", &forged);
    let forged = history.it.group.external_commit(&joiner).with(Proposal::Remove(2)).sign();
    history.commit("an external commit of one who comes back", &forged);
    history.answers
}

rules! {
    suite_1 ("§17.1", "signature"):
        "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519: signatures are verified.",
        accepted: "Creation, Add, Update, Remove, GroupContextExtensions, external commit and resync.",
        |broken| history(Suite::Ed25519, broken);
    suite_2 ("§17.1", "signature"):
        "MLS_128_DHKEMP256_AES128GCM_SHA256_P256: signatures are verified.",
        accepted: "The same history.",
        |broken| history(Suite::P256, broken);
    suite_3 ("§17.1", "signature"):
        "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519: signatures are verified.",
        accepted: "The same history.",
        |broken| history(Suite::Ed25519ChaCha, broken);
    suite_4 ("§17.1", "signature"):
        "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448: signatures are verified.",
        accepted: "The same history.",
        |broken| history(Suite::Ed448, broken);
    suite_5 ("§17.1", "signature"):
        "MLS_256_DHKEMP521_AES256GCM_SHA512_P521: signatures are verified.",
        accepted: "The same history.",
        |broken| history(Suite::P521, broken);
    suite_6 ("§17.1", "signature"):
        "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448: signatures are verified.",
        accepted: "The same history.",
        |broken| history(Suite::Ed448ChaCha, broken);
    suite_7 ("§17.1", "signature"):
        "MLS_256_DHKEMP384_AES256GCM_SHA384_P384: signatures are verified.",
        accepted: "The same history.",
        |broken| history(Suite::P384, broken);
}
