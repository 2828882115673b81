//! Tests of `[[applications]]`.

use super::*;

#[test]
fn x509_applications_are_checked() {
    let parameters = |name: &str| format!("applications[0].identity_configuration.parameters{name}");
    let device = "device_handle_range = { start = 0, end = 0 }";
    let both = "supports_accounts = true\nsupports_domains = true";
    let offsets = |account: u8, domain: u8| {
        format!("{device}\naccount_handle_offset = {account}\ndomain_name_offset = {domain}")
    };
    let with_domains = |text: String| format!("domains = [\"a.example\"]\n{text}");

    check(&x509_application("", device, TRUST), None);
    check(&with_domains(x509_application(both, &offsets(1, 2), TRUST)), None);
    check(&x509_application(both, &offsets(1, 2), TRUST), Some(("domains", "applications[0] uses domains")));
    check(&x509_application("", device, ""), Some(("applications[0].x509", "is required, because")));
    check(&application(TRUST), Some(("applications[0].x509", "must be left out")));
    check(
        &x509_application("", device, "[applications.x509]"),
        Some(("applications[0].x509.trust_roots", "is required: the path of a PEM file")),
    );
    check(
        &x509_application("", device, &format!("{TRUST}\nexpired_members = \"keep\"")),
        Some((
            "applications[0].x509.expired_members",
            "\"propose\" or \"refuse\" or \"ignore\", not \"keep\"",
        )),
    );
    let above = |max: &str| format!("{TRUST}\ncertificates_above_names_max = {max}");
    check(&x509_application("", device, &above("0")), None);
    check(
        &x509_application("", device, &above("9")),
        Some(("applications[0].x509.certificates_above_names_max", "from 0 to 8")),
    );
    check(
        &x509_application("", device, &above("-1")),
        Some(("applications[0].x509.certificates_above_names_max", "from 0 to 8, not -1")),
    );
    check(&with_domains(x509_application(both, &offsets(6, 7), TRUST)), None);
    check(
        &with_domains(x509_application(both, &offsets(1, 8), TRUST)),
        Some((&parameters(""), "limits.certificates_per_chain_max allows 8")),
    );
    check(
        &x509_application(
            "",
            "device_handle_range = { start = 0, end = 2 }",
            &format!("{TRUST}\n[limits]\ncertificates_per_chain_max = 2"),
        ),
        Some((&parameters(""), "the highest offset is 2")),
    );
    check(
        &x509_application("", "", TRUST),
        Some((&parameters(".device_handle_range"), "is required: a table with `start`, `end`")),
    );
    check(
        &x509_application("", &format!("{device}\nhandle = 1"), TRUST),
        Some((&parameters(".handle"), "not a setting of this table, which has `device_handle_range`")),
    );
    check(
        &x509_application("", "device_handle_range = { start = 0, end = 256 }", TRUST),
        Some((&parameters(".device_handle_range.end"), "from 0 to 255, not 256")),
    );
    check(
        &x509_application("", "device_handle_range = { start = 2, end = 1 }", TRUST),
        Some((&parameters(".device_handle_range.end"), "must not be before")),
    );
    check(
        &x509_application("supports_accounts = true", device, TRUST),
        Some((&parameters(".account_handle_offset"), "supports_accounts is true")),
    );
    check(
        &with_domains(x509_application(both, &offsets(0, 2), TRUST)),
        Some((&parameters(".account_handle_offset"), "greater than device_handle_range.end")),
    );
    check(
        &with_domains(x509_application("supports_domains = true", device, TRUST)),
        Some((&parameters(".domain_name_offset"), "supports_domains is true")),
    );
    check(
        &with_domains(x509_application("supports_domains = true", &offsets(9, 0), TRUST)),
        Some((&parameters(".domain_name_offset"), "greater than device_handle_range.end")),
    );
    check(
        &with_domains(x509_application(both, &offsets(2, 2), TRUST)),
        Some((&parameters(".domain_name_offset"), "greater than account_handle_offset")),
    );

    let federating = |domain: &str, flags: &str| {
        let text = x509_application(flags, &offsets(1, 2), TRUST);
        with_domains(text.replace("7e11\"", &format!("7e11\"\nfederates_with = [\"{domain}\"]")))
    };
    check(&federating("b.example", both), Some(("federation", "applications[0] federates with b.example")));
    check(
        &federating("b.example", "supports_accounts = true"),
        Some(("applications[0].federates_with", "supports_domains")),
    );
    check(&federating("A.example", both), Some(("applications[0].federates_with", "this gateway's own")));
}

#[test]
fn files_are_found_next_to_the_configuration_and_checked_when_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let device = "device_handle_range = { start = 0, end = 0 }";
    let refused = |rest: &str| {
        std::fs::write(&file, x509_application("", device, rest)).unwrap();
        match Config::read(&file).unwrap().build_applications() {
            Err(ConfigError::Malformed { member, reason, .. }) => format!("{member}: {reason}"),
            outcome => panic!("{outcome:?}"),
        }
    };
    let roots = directory.path().join("roots.pem");
    let message = refused(TRUST);
    assert!(message.starts_with("applications[0].x509.trust_roots: "), "{message}");
    assert!(message.contains(roots.to_str().unwrap()), "{message}");
    std::fs::write(&roots, "nothing").unwrap();
    assert!(refused(TRUST).starts_with("applications[0].x509.trust_roots: "));

    let key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(&roots, root.self_signed(&key).unwrap().pem()).unwrap();
    let sender =
        |private_key: &str| format!("{TRUST}\nexternal_senders = [{{ private_key = \"{private_key}\" }}]");
    let missing = refused(&sender("missing.key"));
    assert!(missing.starts_with("applications[0].x509.external_senders[0].private_key: "), "{missing}");
    assert!(refused(&sender("roots.pem")).contains("PKCS#8"));
    let crl = refused(&format!("{TRUST}\ncrls = [\"crl.pem\"]"));
    assert!(crl.starts_with("applications[0].x509.crls[0]: "), "{crl}");
    let issuers = refused(&format!("{TRUST}\ncrl_issuers = \"crl-issuers.pem\""));
    assert!(issuers.starts_with("applications[0].x509.crl_issuers: "), "{issuers}");
    assert!(issuers.contains("crl-issuers.pem: "), "{issuers}");
    let issuers = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    let issuers = refused(&format!("{TRUST}\ncrl_issuers = \"\"\"{issuers}\"\"\""));
    assert!(issuers.contains("CRL issuer 1 cannot be used: it cannot be read"), "{issuers}");

    // What is in the files and does not work is no fault, and is warned of.
    let mut expired = root.clone();
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2000, 1, 1),
        next_update: rcgen::date_time_ymd(2001, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let mut issuer = root.clone();
    issuer.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let list = list.signed_by(&rcgen::Issuer::from_params(&issuer, &key)).unwrap();
    std::fs::write(directory.path().join("late.crl"), list.der()).unwrap();
    let both = [&root, &expired].map(|root| root.self_signed(&key).unwrap().pem()).concat();
    std::fs::write(directory.path().join("two.pem"), both).unwrap();
    let rest = TRUST.replace("roots.pem", "two.pem") + "\ncrls = [\"late.crl\"]";
    std::fs::write(&file, x509_application("", device, &rest)).unwrap();
    let config = Config::read(&file).unwrap();
    let warnings =
        config.warnings(&config.build_applications().unwrap(), actors::Clock::system().now()).unwrap();
    let [root_warning, list_warning] = &warnings[1..] else { panic!("{warnings:?}") };
    assert!(
        root_warning.starts_with("applications[0].x509.trust_roots: root 2: it has expired"),
        "{root_warning}"
    );
    assert!(
        list_warning.starts_with("applications[0].x509.crls[0]: it is past its next update"),
        "{list_warning}"
    );

    std::fs::write(directory.path().join("sender.key"), key.serialize_pem()).unwrap();
    std::fs::write(&file, x509_application("", device, &sender("sender.key"))).unwrap();
    let config = Config::read(&file).unwrap();
    let printed = config.to_toml().unwrap();
    assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
    let built = config.build_applications().unwrap();
    assert_eq!(built[0].external_senders[0].public_key(), key.public_key_raw());
    // ecdsa_secp256r1_sha256 in the registry of TLS.
    assert_eq!(built[0].external_senders[0].scheme(), 0x0403);
}

#[test]
fn applications_are_checked() {
    let member = |name: &str| format!("applications[0].{name}");
    let identity = |name: &str| format!("applications[0].identity_configuration.{name}");
    check("[[applications]]\nid = \"1\"", Some((&member("id"), "must be a UUID of version 4")));
    for other in ["7c0c7b44-5a0f-1a43-9a51-0a9f6b9c7e11", "7c0c7b44-5a0f-4a43-ca51-0a9f6b9c7e11"] {
        let text = format!("[[applications]]\nid = \"{other}\"");
        check(&text, Some((&member("id"), "must be a UUID of version 4")));
    }
    check(
        "[[applications]]\npublic = true",
        Some(("applications[0].id", "is required: a UUID of version 4")),
    );
    check(&application(APPLICATION), Some(("applications[1].id", "already")));
    check(
        &application("[applications.identity_configuration]\nidentity_provider_type = 3"),
        Some((&identity("identity_provider_type"), "1 (Basic) or 2 (X.509)")),
    );
    check(
        &application(
            "[applications.identity_configuration]\nidentity_provider_type = 1\nsupports_domains = true",
        ),
        Some((&identity("supports_domains"), "must be false")),
    );
    check(
        &application(
            "[applications.identity_configuration]\nidentity_provider_type = 1\nparameters = { depth = 1 }",
        ),
        Some((&identity("parameters"), "must be empty")),
    );
    check(
        &application("[applications.identity_configuration]\nidentity_provider_type = 1\ndepth = 1"),
        Some((&identity("depth"), "is not a setting")),
    );
    check(
        &application("federates_with = [\"b.example\"]"),
        Some((&member("federates_with"), "supports_domains")),
    );
    check(
        &application("tokens = [{ sha256 = \"ab\", access = \"read\" }]"),
        Some((&member("tokens[0].sha256"), "64 hexadecimal digits")),
    );
    check(
        &application(&format!("tokens = [{{ sha256 = \"{}\", access = \"write\" }}]", hash('a'))),
        Some((&member("tokens[0].access"), "must be \"read\" or \"read-write\", not \"write\"")),
    );
    let token = format!("{{ sha256 = \"{}\", access = \"read\" }}", hash('a'));
    check(
        &application(&format!("tokens = [{token}, {token}]")),
        Some((&member("tokens[1].sha256"), "already")),
    );
}
