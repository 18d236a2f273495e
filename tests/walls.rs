//! The walls between the rooms of `src/`: a room may use the rooms listed beside it and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each room with the rooms it may use. `cli` and `main` see all.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("revenue", &[]),
    ("stream", &[]),
    ("observe", &[]),
    ("config", &["revenue"]),
    ("codec", &["revenue", "config"]),
    ("pipeline", &["revenue", "config", "codec", "stream"]),
    ("sink", &["revenue", "config", "codec", "stream"]),
    ("sandbox", &[]),
    (
        "cli",
        &[
            "revenue", "config", "codec", "stream", "pipeline", "sink", "sandbox", "observe",
        ],
    ),
];

/// Crates that a pure room may not name.
const NOT_IN_REVENUE: [&str; 7] = [
    "serde",
    "tokio",
    "rdkafka",
    "rocksdb",
    "std::fs",
    "std::net",
    "SystemTime",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The rooms that the code names as `crate::room`, comments left out.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for line in code.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
                None => vec![rest],
            };
            for name in names {
                let name: String = name
                    .trim()
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                named.insert(name);
            }
        }
    }
    named
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn no_arrow_points_outward() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into();
    let mut outward = Vec::new();
    for (room, may) in &allowed {
        for file in sources(&src().join(room)) {
            let code = std::fs::read_to_string(&file).expect("source");
            for named in rooms_named(&code) {
                if allowed.contains_key(named.as_str()) && named != *room && !may.contains(&named.as_str()) {
                    outward.push(format!("{}: {room} may not use {named}", file.display()));
                }
            }
        }
    }
    assert!(outward.is_empty(), "{}", outward.join("\n"));
}

#[test]
fn every_room_has_its_wall() {
    let rooms: BTreeSet<String> = std::fs::read_dir(src())
        .expect("src")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let walled: BTreeSet<String> = MAY_USE.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(rooms, walled);
}

#[test]
fn the_accounting_is_pure() {
    let mut impure = Vec::new();
    for file in sources(&src().join("revenue")) {
        let code = std::fs::read_to_string(&file).expect("source");
        for line in code.lines().map(|line| line.split("//").next().unwrap_or_default()) {
            for word in NOT_IN_REVENUE {
                if line.contains(word) {
                    impure.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(impure.is_empty(), "{}", impure.join("\n"));
}

#[test]
fn the_check_itself_sees_arrows() {
    let code = "use crate::stream::record::Topic; // crate::codec is fine here\nuse crate::{codec, config};\nlet x = crate::cli::main();";
    let named: Vec<String> = rooms_named(code).into_iter().collect();
    assert_eq!(named, ["cli", "codec", "config", "stream"]);
}
