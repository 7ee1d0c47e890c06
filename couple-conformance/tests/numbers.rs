//! Each numbered guarantee of a trait has one check, and each check one guarantee.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::Path};

/// Text of all Rust files below a folder of the workspace.
fn sources(folder: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let (mut text, mut open) = (String::new(), vec![path]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

/// `S1` of `* **S1** A commit is atomic`.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_uppercase());
    digits.len() < text.len() && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names of the checks in a source: functions whose name starts with a number.
fn checks(source: &str) -> impl Iterator<Item = &str> {
    let functions = source.lines().filter_map(|line| line.strip_prefix("pub async fn "));
    let names = functions.filter_map(|line| line.split(['<', '(']).next());
    names.filter(|name| name.split('_').next().is_some_and(|number| is_number(&number.to_uppercase())))
}

/// Whether a source contains a name, and not only as a part of another one.
fn has_name(source: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    source
        .match_indices(name)
        .any(|(at, _)| !source[..at].ends_with(is_part) && !source[at + name.len()..].starts_with(is_part))
}

#[test]
fn every_check_is_in_a_macro() {
    let kit = sources("couple-conformance/src");
    let (macros, mut count) = (sources("couple-conformance/src/lib.rs"), 0);
    for name in checks(&kit) {
        assert!(has_name(&macros, name), "no macro of lib.rs runs the check {name}");
        count += 1;
    }
    assert!(count > 100, "the checks were not found: {count}");
}

#[test]
fn every_check_of_a_store_or_of_live_streams_finds_a_planted_fault() {
    let areas = [
        "store",
        "account",
        "pairing",
        "timeline",
        "media",
        "upload",
        "device",
        "notification",
        "date",
        "job",
        "idempotency",
        "bus",
        "limits",
        "presence",
    ];
    let faults = sources("couple-conformance/tests/faults");
    for area in areas {
        let file = format!("couple-conformance/src/{area}.rs");
        let is_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&file).is_file();
        let kit = sources(if is_file { &file } else { file.trim_end_matches(".rs") });
        assert!(checks(&kit).count() > 0, "the checks of {area} were not found");
        for name in checks(&kit) {
            assert!(has_name(&faults, name), "no planted fault shows that the check {name} finds one");
        }
    }
}

#[test]
fn every_guarantee_has_one_check() {
    // Guarantees whose tests are elsewhere: they need sessions of live streams, or the randomness of the system.
    let elsewhere = ["SC"];
    let ports = ["couple-core/src", "couple-media/src", "src/http"].map(sources).concat();
    let mut promised = BTreeSet::new();
    let comments = ports.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
    for number in comments.filter_map(|line| line.split_once("**")?.1.split("**").next()) {
        if is_number(number) && !elsewhere.iter().any(|prefix| number.starts_with(prefix)) {
            assert!(promised.insert(number), "two guarantees have the number {number}");
        }
    }
    let kit = sources("couple-conformance/src");
    let mut checked = BTreeSet::new();
    for name in checks(&kit) {
        let number = name.split('_').next().unwrap().to_uppercase();
        assert!(checked.insert(number.clone()), "two checks have the number {number}");
    }
    let promised: BTreeSet<String> = promised.into_iter().map(str::to_owned).collect();
    assert!(promised.len() > 100, "the guarantees were not found: {promised:?}");
    let missing: Vec<_> = promised.difference(&checked).collect();
    assert!(missing.is_empty(), "guarantees without a check: {missing:?}");
    let unknown: Vec<_> = checked.difference(&promised).collect();
    assert!(unknown.is_empty(), "checks without a guarantee in the documentation of a trait: {unknown:?}");
}
