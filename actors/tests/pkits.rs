//! Certificate chains of NIST's *Public Key Interoperability Test Suite*: every test of its section 4, with its default
//! settings. `pkits/README.md` names the source of the data.
//!
//! The results are committed as `docs/pkits.md`; this test fails when they differ. `PKITS_WRITE=1` rewrites it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at what it does not expect")]

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use actors::{Timestamp, identity::x509::TrustStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// 2026-01-01: most certificates of the suite are valid from 2010 to 2030.
const NOW: Timestamp = Timestamp(1_767_225_600_000);

const ROOT: &str = "TrustAnchorRootCertificate";
const ROOT_CRL: &str = "TrustAnchorRootCRL";

/// A reason for which the gateway refuses a valid path, on purpose.
struct Stricter {
    /// What `tests.txt` calls it.
    word: &'static str,
    /// What a refusal for this reason says.
    says: &'static str,
    why: &'static str,
}

const STRICTER: [Stricter; 3] = [
    Stricter {
        word: "dsa",
        says: "is signed in a way that is not accepted",
        why: "DSA is not an accepted signature algorithm.",
    },
    Stricter {
        word: "leaf",
        says: "is a CA certificate, which cannot be a leaf",
        why: "A CA certificate cannot be a client's. This rule comes after all of RFC 5280, so invalid paths are refused for \
              what they are about.",
    },
    Stricter {
        word: "circle",
        says: "revocation list without a valid signer",
        why: "The only list that covers the signer of a list is that list. Whoever stole such a signer's key could deny its \
              revocation.",
    },
];

/// What the refusal of an invalid path has to say, by the number of its test: the first that begins so counts.
const ABOUT: [(&str, &[&str]); 22] = [
    ("4.1.", &["is not signed with its issuer's key", "cannot be read"]),
    ("4.2.", &["is not valid yet", "has expired"]),
    ("4.3.", &["was not issued by the certificate after it"]),
    // Tests 2 and 3 are about entries, and 8 to 10 about extensions of lists.
    (
        "4.4.",
        &[
            "not covered",
            "is revoked",
            "without a valid signer",
            "not supported",
            "next update",
            "cannot be used",
        ],
    ),
    ("4.5.8", &["is not a CA certificate"]),
    ("4.5.", &["is revoked", "not covered"]),
    ("4.6.1 ", &["is not a CA certificate"]),
    ("4.6.2 ", &["is not a CA certificate"]),
    ("4.6.3 ", &["is not a CA certificate"]),
    ("4.6.", &["CA certificates below it"]),
    ("4.7.1 ", &["keyCertSign"]),
    ("4.7.2 ", &["keyCertSign"]),
    ("4.7.", &["cRLSign"]),
    ("4.8.", &["no certificate policy"]),
    ("4.9.", &["no certificate policy"]),
    ("4.10.", &["no certificate policy", "maps the certificate policy anyPolicy"]),
    ("4.11.", &["no certificate policy"]),
    ("4.12.", &["no certificate policy"]),
    ("4.13.", &["name constraints of its issuers forbid"]),
    ("4.14.", &["not covered", "is revoked", "without a valid signer", "without cRLSign"]),
    ("4.15.", &["not covered", "is revoked", "next update"]),
    ("4.16.", &["critical extension"]),
];

/// Where the suite has a path validated once more with other initial settings than the default, and calls it invalid
/// then.
const OTHER_SETTINGS: [(&str, &str); 12] = [
    ("4.8.1", "explicit policy, of policy 2"),
    ("4.8.2", "explicit policy"),
    ("4.8.3", "explicit policy"),
    ("4.8.3", "explicit policy, of policies 1 and 2"),
    ("4.8.6", "policy 2"),
    ("4.8.14", "policy 2"),
    ("4.10.1", "policy 2"),
    ("4.10.1", "policy 1, no mapping"),
    ("4.10.3", "policy 1"),
    ("4.10.5", "policy 6"),
    ("4.10.6", "policy 6"),
    ("4.12.3", "no anyPolicy"),
];

const HEADER: &str = "\
# NIST's path validation test suite

What `actors/tests/pkits.rs` found: do not edit. `PKITS_WRITE=1 cargo test -p mimi-gateway-actors --test pkits` writes it.

Every test of section 4 of NIST's *Public Key Interoperability Test Suite (PKITS) Certification Path Validation*, version
1.0.1, with its default settings, its CRLs, and the certificates of those who sign them, validated at 2026-01-01. *refused* is
followed by what the gateway says; a number names the reason below for which a valid path is refused.
";

/// One line of `tests.txt`.
struct Case {
    number: String,
    valid: bool,
    /// A word of [`STRICTER`]: what the gateway is expected to refuse a valid path for.
    stricter: Option<String>,
    /// The certificates of the path, leaf first, without the root.
    path: Vec<String>,
    crls: Vec<String>,
    /// Certificates of those who sign CRLs and are not in the path.
    crl_issuers: Vec<String>,
}

impl Case {
    fn read(line: &str) -> Self {
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        let [number, expected, path, crls, ref crl_issuers @ ..] = fields[..] else {
            panic!("four fields: {line}")
        };
        let (expected, stricter) = expected.split_once(' ').map_or((expected, None), |(e, s)| (e, Some(s)));
        let words = |field: &str| field.split_whitespace().map(str::to_owned).collect();
        Self {
            number: number.to_owned(),
            valid: match expected {
                "valid" => true,
                "invalid" => false,
                other => panic!("valid or invalid: {other}"),
            },
            stricter: stricter.map(str::to_owned),
            path: words(path),
            crls: words(crls),
            crl_issuers: words(crl_issuers.first().unwrap_or(&"")),
        }
    }
}

/// The certificates and CRLs of the suite, by name: PEM.
struct Suite {
    certificates: BTreeMap<String, String>,
    crls: BTreeMap<String, String>,
}

impl Suite {
    /// The gateway's verdict; an error says what is wrong with the revocation lists, or with the chain.
    fn validate(&self, case: &Case) -> Result<(), String> {
        let crls: Vec<_> = [ROOT_CRL]
            .into_iter()
            .chain(case.crls.iter().map(String::as_str))
            .map(|name| self.crls[name].clone().into_bytes())
            .collect();
        let store =
            TrustStore::new(self.certificates[ROOT].as_bytes(), &crls).map_err(|error| error.to_string())?;
        let store = match case.crl_issuers.iter().map(|name| &*self.certificates[name]).collect::<String>() {
            issuers if issuers.is_empty() => store,
            issuers => store.with_crl_issuers(issuers.as_bytes()).map_err(|error| error.to_string())?,
        };
        let path: Vec<_> = case.path.iter().map(|name| self.der(name)).collect();
        let mut chain: Vec<&[u8]> = path.iter().map(AsRef::as_ref).collect();
        let verdict = store.validate(&chain, NOW);
        let root = self.der(ROOT);
        chain.push(&root);
        assert_eq!(verdict, store.validate(&chain, NOW), "{}, with and without the root", case.number);
        verdict.map_err(|error| error.to_string())
    }

    fn der(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificates[name].as_bytes()).unwrap()
    }

    /// What the suite calls the last certificate of the path: its common name.
    fn title(&self, case: &Case) -> String {
        let der = self.der(&case.path[0]);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let name =
            certificate.subject().iter_common_name().last().map(|name| name.as_str().unwrap().to_owned());
        name.unwrap_or_else(|| case.path[0].clone())
    }
}

/// PEM sections by the line before each.
fn sections(text: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            assert!(sections.insert(name.clone(), String::new()).is_none(), "{name} is there once");
        }
        match sections.get_mut(&name) {
            Some(section) if !section.contains("-----END ") => writeln!(section, "{line}").unwrap(),
            _ => line.clone_into(&mut name),
        }
    }
    sections
}

/// What became of one case.
enum Outcome<'a> {
    Accepted,
    /// Refused, as the suite does, for what the test is about.
    Refused(&'a str),
    /// Refused, although the suite calls it valid: for this one of [`STRICTER`].
    Stricter(usize, &'a str),
}

impl Case {
    /// `None` if the verdict, or its reason, is not what `tests.txt` and [`ABOUT`] expect.
    fn outcome<'a>(&self, verdict: &'a Result<(), String>) -> Option<Outcome<'a>> {
        let why = self.stricter.as_ref().map(|word| {
            let why = STRICTER.iter().position(|known| known.word == word);
            why.unwrap_or_else(|| panic!("what is {word}?"))
        });
        match (verdict, self.valid, why) {
            (Ok(()), true, None) => Some(Outcome::Accepted),
            (Err(reason), false, None) if self.is_about(reason) => Some(Outcome::Refused(reason)),
            (Err(reason), true, Some(why)) if reason.contains(STRICTER[why].says) => {
                Some(Outcome::Stricter(why, reason))
            }
            _ => None,
        }
    }

    fn is_about(&self, reason: &str) -> bool {
        let number = format!("{} ", self.number);
        let about = ABOUT.iter().find(|(begins, _)| number.starts_with(begins));
        about.is_some_and(|(_, parts)| parts.iter().any(|part| reason.contains(part)))
    }
}

/// `docs/pkits.md`.
fn document(suite: &Suite, cases: &[Case]) -> String {
    let (mut accepted, mut refused) = (0, 0);
    let mut stricter = [0; STRICTER.len()];
    let (mut rows, mut verdicts, mut wrong) = (String::new(), BTreeMap::new(), Vec::new());
    for case in cases {
        let verdict = suite.validate(case);
        let said = match case.outcome(&verdict) {
            Some(Outcome::Accepted) => {
                accepted += 1;
                "valid | accepted".to_owned()
            }
            Some(Outcome::Refused(reason)) => {
                refused += 1;
                format!("invalid | refused: {reason}")
            }
            Some(Outcome::Stricter(why, reason)) => {
                stricter[why] += 1;
                format!("valid | **stricter ({})**, refused: {reason}", why + 1)
            }
            None => {
                wrong.push(format!("{}: {verdict:?}", case.number));
                continue;
            }
        };
        writeln!(rows, "| {} | {} | {said} |", case.number, suite.title(case)).unwrap();
        verdicts.insert(case.number.as_str(), verdict);
    }
    assert!(wrong.is_empty(), "not what tests.txt expects:\n{}", wrong.join("\n"));

    let mut text = HEADER.to_owned();
    writeln!(text, "\n| of {} | the suite says valid | the suite says invalid |", cases.len()).unwrap();
    writeln!(text, "|---|---|---|").unwrap();
    let too_strict = stricter.iter().sum::<usize>();
    writeln!(text, "| the gateway accepts | {accepted} | 0 |").unwrap();
    writeln!(text, "| the gateway refuses, for what the test is about | 0 | {refused} |").unwrap();
    writeln!(text, "| the gateway refuses, for a feature that it does not have | {too_strict} | 0 |")
        .unwrap();

    text.push_str(
        "\n## Where the gateway is stricter, on purpose\n\n| | valid tests | why |\n|---|---|---|\n",
    );
    for (index, reason) in STRICTER.iter().enumerate() {
        assert_ne!(stricter[index], 0, "a reason that no test needs: {}", reason.why);
        writeln!(text, "| {} | {} | {} |", index + 1, stricter[index], reason.why).unwrap();
    }

    text.push_str(
        "\n## Tests\n\n| test | certificate | the suite says | the gateway says |\n|---|---|---|---|\n",
    );
    text.push_str(&rows);

    text.push_str(
        "\n## Other settings\n\nThe suite has some of these paths validated once more, with settings that are not the \
         default, and calls them invalid\nthen. The gateway has no such settings (RFC 5280 §6.1.1 (c) to (f)). With \
         the default it says:\n\n| test | setting | the gateway says |\n|---|---|---|\n",
    );
    for (number, setting) in OTHER_SETTINGS {
        let said = if verdicts[number].is_ok() { "accepted" } else { "refused" };
        writeln!(text, "| {number} | {setting} | {said} |").unwrap();
    }
    text
}

#[test]
fn the_table_says_what_the_gateway_does() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(package.join("tests/pkits").join(name)).unwrap();
    let suite =
        Suite { certificates: sections(&read("certificates.pem")), crls: sections(&read("crls.pem")) };
    let cases: Vec<_> = read("tests.txt").lines().map(Case::read).collect();
    assert_eq!(cases.len(), 224, "every test of section 4");

    let found = document(&suite, &cases);
    let committed = package.join("../docs/pkits.md");
    if std::env::var_os("PKITS_WRITE").is_some() {
        fs::write(&committed, &found).unwrap();
    }
    let expected = fs::read_to_string(&committed).unwrap_or_default();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "docs/pkits.md is not up to date: PKITS_WRITE=1 writes it");
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "docs/pkits.md is not up to date");
}
