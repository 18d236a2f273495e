//! What a user reads when a topology file is wrong: every problem at once, each with its place and its cure.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use accrue::config::{self, Problem};
use proptest::prelude::*;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn unset(_: &str) -> Option<String> {
    None
}

fn problems_of(text: &str) -> Vec<String> {
    match config::parse("topology.toml", text, &unset) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(Problem::to_string).collect(),
    }
}

/// Compares with a golden file; `UPDATE=1 cargo test` writes it anew.
fn assert_golden(name: &str, actual: &str) {
    let path: PathBuf = repository().join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, actual).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(
        read(name),
        actual,
        "{name} is not current; see the difference, then UPDATE=1 cargo test"
    );
}

#[test]
fn every_problem_is_reported_at_once_with_its_place_and_cure() {
    let found =
        config::parse("broken.toml", &read("tests/config/broken.toml"), &unset).expect_err("the file is broken");
    let text: String = found.iter().map(|problem| format!("{problem}\n")).collect();
    assert_golden("tests/config/broken.txt", &text);
    assert!(found.len() >= 40, "only {} problems found", found.len());
    assert!(found.is_sorted_by_key(|problem| (problem.line, problem.column)));
    // One mistake, one report.
    let mut keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

/// The rules that the broken file cannot show, because it already breaks the same key in another way.
#[test]
fn rules_between_keys_hold_at_their_edges() {
    let canonical = "[[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n";
    let mapping = "[mapping.m]\ntenant = \"a\"\ncurrency = \"EUR\"\nstages = { Won = \"closed\" }\n\
                   deal = { id = \"i\", stage = \"s\", amount = \"a\", contract_start = \"c\", term_months = \"t\" }\n";
    let tenants = "[tenants.acme]\nfunctional_currency = \"USD\"\n[tenants.beta]\nfunctional_currency = \"EUR\"\n\
                   [tenants.delta]\nfunctional_currency = \"EUR\"\n[tenants.own]\n";
    let odoo = |name: &str, more: &str| {
        let system = format!("[sinks.{name}.odoo]\nurl = \"https://odoo.example\"\napi_key = \"k\"\n");
        format!("[sinks.{name}]\nkind = \"odoo\"\n{more}{system}")
    };
    let feed = |name: &str, folder: &str| {
        format!("[budgets.{name}]\nkind = \"folder\"\ntenant = \"acme\"\nfolder = \"{folder}\"\n")
    };
    for (text, expected) in [
        (
            canonical.replace("\"a\"", "\"b\""),
            "source[1].topic: read by source[0] as well; keep one of the two",
        ),
        (
            "[runtime]\nsession_timeout = \"30s\"".to_owned(),
            "runtime.transaction_timeout: must be shorter than session_timeout; write less than \"30s\"",
        ),
        (
            "[runtime]\ncommit_interval = \"30s\"".to_owned(),
            "runtime.transaction_timeout: must be longer than commit_interval; write more than \"30s\"",
        ),
        (
            "[log]\nkind = \"kafka\"".to_owned(),
            "kafka.bootstrap_servers: missing, and log.kind is \"kafka\"; write bootstrap_servers = \"host:9092\"",
        ),
        (
            "[registry]\npassword = \"p\"".to_owned(),
            "registry.password: given without username; write both or neither",
        ),
        (
            "[registry]\nusername = \"u\"\ntoken = \"t\"".to_owned(),
            "registry.token: given beside username or password; keep one of the two",
        ),
        (
            mapping.replace("closed", "ignore"),
            "mapping.m.stages: no stage closes a deal; write for example \"Closed Won\" = \"closed\"",
        ),
        (
            format!(
                "{mapping}milestone = {{ id = \"i\", deal_id = \"d\", line_item_id = \"l\", accepted_on = \"a\", percent = \"p\" }}"
            ),
            "mapping.m.line: milestones belong to lines; add [mapping.m.line]",
        ),
        (
            format!(
                "{mapping}line = {{ id = \"i\", deal_id = \"d\", amount = \"a\" }}\n\
                 milestone = {{ id = \"i\", deal_id = \"d\", line_item_id = \"l\", accepted_on = \"a\" }}"
            ),
            "mapping.m.milestone.percent: a milestone would have no value; write percent = \"COLUMN\" or amount = \"COLUMN\"",
        ),
        (
            "[kafka]\nstartup_timeout = \"${ACCRUE_TEST_UNSET:-later}\"".to_owned(),
            "kafka.startup_timeout: \"${ACCRUE_TEST_UNSET:-later}\" is no length of time; write a whole number and ms, s, m, \
             h or d, such as \"100ms\"",
        ),
        (
            "[tenants.t]\npolicy = \"strict\"".to_owned(),
            "tenants.t.policy: there is no [policies.strict]; add it",
        ),
        (
            format!("{tenants}{}", odoo("a", "")),
            "sinks.a.tenants: a company has one currency, and the tenants keep their books beta, delta in EUR; acme in USD; \
             write tenants = [\"beta\", \"delta\"] here, and a sink of its own for each other currency",
        ),
        (
            format!("{tenants}{}", odoo("a", "tenants = [\"acme\", \"beta\", \"other\"]\n")),
            "sinks.a.tenants: a company has one currency, and the tenants keep their books beta in EUR; acme in USD; \
             write tenants = [\"beta\"] here, and a sink of its own for each other currency",
        ),
        (
            odoo("a", "tenants = []\n"),
            "sinks.a.tenants: names nobody, so nothing would be delivered; name tenants, or leave it out for all",
        ),
        (
            odoo("a", "") + &odoo("b", "tenants = [\"acme\"]\n"),
            "sinks.b.kind: writes to the same books as [sinks.a], so every entry would be there twice; remove one of them, \
             or give each tenants of its own",
        ),
        (
            feed("a", "plans") + &feed("b", "./plans/"),
            "budgets.b.folder: the place of [budgets.a] as well, and each would overwrite the other's months; give each its own",
        ),
    ] {
        let found = problems_of(&format!("{canonical}{text}"));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].ends_with(expected), "{text}: {found:#?}");
    }
    assert_eq!(problems_of(&format!("{canonical}{mapping}")), Vec::<String>::new());
    let apart = odoo("a", "tenants = [\"acme\"]\n") + &odoo("b", "tenants = [\"beta\", \"delta\"]\n");
    let other = "[sinks.c]\nkind = \"file\"\n[sinks.c.file]\nformat = \"csv\"\ndir = \"x\"\n";
    let feeds = feed("a", "plans") + &feed("b", "plans/b");
    assert_eq!(
        problems_of(&format!("{canonical}{tenants}{apart}{other}{feeds}")),
        Vec::<String>::new()
    );
}

#[test]
fn what_an_unknown_kind_needs_is_not_asked_for() {
    let canonical = "[[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n";
    for (table, choices) in [
        (
            "[warehouses.w]\nkind = \"redshift\"\nlocation = \"s3://b/p\"\n",
            "\"postgres\", \"lakehouse\"",
        ),
        (
            "[budgets.b]\nkind = \"gopher\"\ntenant = \"acme\"\nhost = \"h\"\n",
            "\"folder\", \"sftp\"",
        ),
    ] {
        let found = problems_of(&format!("{canonical}{table}"));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(choices), "{found:#?}");
    }
}

/// `accrue check` over a file: the exit code, and what it said on stderr.
fn check(text: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("topology.toml");
    fs::write(&path, text).expect("file");
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_accrue"))
        .args(["check", "--topology"])
        .arg(&path)
        .env("ACCRUE_TEST_PROTOCOL", "hidden")
        .output()
        .expect("accrue");
    (out.status.code(), String::from_utf8(out.stderr).expect("text"))
}

#[test]
fn what_the_kafka_client_would_refuse_is_found_without_a_broker() {
    let text = "[[source]]\nname = \"a\"\ntopic = \"t\"\nformat = \"canonical-json\"\n\
                [log]\nkind = \"kafka\"\n[kafka]\nbootstrap_servers = \"nowhere:9092\"\n[kafka.properties]\n\
                \"security.protocol\" = \"${ACCRUE_TEST_PROTOCOL}\"\n\"sasl.mechanisme\" = \"PLAIN\"\n\
                \"ssl.ca.location\" = \"/nowhere/ca.pem\"\nstatistics.interval.ms = \"often\"\nsasl.password = \"secret\"\n";
    let (code, errors) = check(text);
    assert_eq!(code, Some(2), "{errors}");
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 4, "{errors}");
    assert!(
        lines[0].ends_with(
            ":10:1: kafka.properties.\"security.protocol\": librdkafka refuses the value of \"${ACCRUE_TEST_PROTOCOL}\""
        ),
        "{errors}"
    );
    assert!(
        lines[1].ends_with(
            ":11:1: kafka.properties.\"sasl.mechanisme\": librdkafka has no such setting; did you mean \"sasl.mechanism\"?"
        ),
        "{errors}"
    );
    assert!(
        lines[2].contains("kafka.properties.statistics.interval.ms: librdkafka refuses it: "),
        "{errors}"
    );
}

#[test]
fn a_line_type_without_an_account_is_a_warning() {
    let shipped = read("topology.toml");
    let (code, errors) = check(&shipped);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (code, errors) = check(&shipped.replace("usage = \"usage\"", "usage = \"metering\"\nrebate = \"discount\""));
    assert_eq!(code, Some(0));
    assert_eq!(
        errors,
        "warning: mapping.crm makes lines of type metering, and sinks.files.accounts has no revenue.metering: their documents \
         will wait until it has\n"
    );
}

#[test]
fn broken_syntax_hides_only_what_it_makes_doubtful() {
    let found = problems_of(
        "application_id = accrue\n[log\nkind = \"kafka\"\n[runtime]\nthreads = 1\nthreads = 2\npartitons = 5\n",
    );
    assert_eq!(
        found,
        [
            "topology.toml:1:18: not TOML: string values must be quoted, expected literal string",
            "topology.toml:2:5: not TOML: unclosed table, expected `]`",
            "topology.toml:6:1: not TOML: duplicate key",
            "topology.toml:7:1: runtime.partitons: unknown key; did you mean \"partitions\"?",
        ]
    );
}

/// Every key of the shipped file, misspelt one at a time, is found again by its suggestion.
#[test]
fn every_misspelt_key_gets_the_right_suggestion() {
    let text = read("topology.toml");
    let document = DeTable::parse(&text).expect("the shipped file is TOML");
    let mut keys = Vec::new();
    collect(document.get_ref(), &[], &mut keys);
    assert!(keys.len() > 100, "only {} keys", keys.len());
    for (path, key, end) in keys {
        let mut misspelt = text.clone();
        misspelt.insert(end, 'x');
        // A table's header is often written once for each of its parts; they are all that key.
        let expected = format!("unknown key; did you mean \"{key}\"?");
        let found = problems_of(&misspelt);
        assert!(
            found
                .iter()
                .any(|problem| problem.contains(&format!("{key}x")) && problem.ends_with(&expected)),
            "{path:?} misspelt as {key}x gave {found:#?}"
        );
    }
}

/// The keys a file does not choose itself, with the end of their text.
fn collect<'d>(table: &'d DeTable<'_>, path: &[&'d str], keys: &mut Vec<(Vec<&'d str>, &'d str, usize)>) {
    let chosen_by_the_user = matches!(
        path,
        ["kafka", "properties"] | ["mapping" | "policies" | "tenants" | "sinks" | "warehouses" | "budgets"]
    ) || matches!(
        path,
        ["mapping", _, "stages" | "line_types" | "billing_cycles" | "methods"] | ["sinks", _, "accounts", "revenue"]
    );
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let here: Vec<&str> = path.iter().copied().chain([name]).collect();
        if !chosen_by_the_user {
            keys.push((here.clone(), name, key.span().end));
        }
        descend(value, &here, keys);
    }
}

fn descend<'d>(value: &'d Spanned<DeValue<'_>>, path: &[&'d str], keys: &mut Vec<(Vec<&'d str>, &'d str, usize)>) {
    match value.get_ref() {
        DeValue::Table(table) => collect(table, path, keys),
        DeValue::Array(items) => items.iter().for_each(|item| descend(item, path, keys)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

#[test]
fn secrets_appear_in_no_debug_output_and_no_error() {
    let secrets = BTreeMap::from([
        ("ACCRUE_LOG", "kafka"),
        ("ACCRUE_REGISTRY", "confluent"),
        ("REGISTRY_URL", "https://registry:8081"),
        ("REGISTRY_USERNAME", "accrue"),
        ("REGISTRY_PASSWORD", "hunter2-registry"),
        ("KAFKA_SASL_PASSWORD", "hunter2-kafka"),
    ]);
    let env = |name: &str| secrets.get(name).map(|value| (*value).to_owned());
    let topology = config::parse("topology.toml", &read("topology.toml"), &env).expect("valid");
    let shown = format!("{topology:?} {topology:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("***"));

    // A value that came from outside is quoted as it is written, wherever it turns out to be wrong.
    let misplaced = |_: &str| Some("hunter2".to_owned());
    let text = r#"
        application_id = "a b ${S}"
        log.kind = "${S}"
        registry = { kind = "confluent", url = "${S}", username = "u", password = "${S}", token = "${S}" }
        runtime.commit_interval = "${S}"
        outputs.journal_entries = "contract ${S}"
        kafka.properties."group.id" = "${S}"
        tenants.t = { policy = "${S}", functional_currency = "${S}" }
        [[source]]
        name = "s"
        topic = "t"
        format = "debezium-json"
        mapping = "${S}"
        table = "deals"
    "#;
    let found = config::parse("topology.toml", text, &misplaced).expect_err("all wrong");
    assert!(found.len() >= 8, "{found:#?}");
    for problem in &found {
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
    let url = "registry = { kind = \"confluent\", url = \"https://user:hunter2@registry\" }";
    let found = problems_of(url).concat();
    assert!(found.contains("registry.url: this is no address"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn secrets_come_from_files_without_their_line_break() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("token");
    fs::write(&path, "s3cret\n").expect("written");
    let text = format!(
        "registry = {{ kind = \"confluent\", url = \"http://r\", token = \"${{file:{}}}\" }}\n\
         [[source]]\nname = \"s\"\ntopic = \"t\"\nformat = \"canonical-json\"\n",
        path.display()
    );
    let topology = config::parse("t.toml", &text, &unset).expect("valid");
    match &topology.registry.place {
        config::RegistryPlace::Confluent {
            auth: config::RegistryAuth::Token(token),
            ..
        } => {
            assert_eq!(token.reveal(), "s3cret");
        }
        other => panic!("{other:?}"),
    }
    let missing = text.replace("/token}", "/absent}");
    let found = problems_of(&missing);
    assert!(found[0].contains("registry.token: cannot read "), "{found:?}");
    // A pipe or device would make the start wait for ever.
    let device = text.replace(&path.display().to_string(), "/dev/zero");
    let found = problems_of(&device);
    assert!(found[0].contains("it is not a regular file"), "{found:?}");
}

#[test]
fn an_unreadable_file_is_a_problem_like_any_other() {
    let found = config::load(Path::new("/nonexistent/topology.toml")).expect_err("no such file");
    let text: Vec<String> = found.iter().map(Problem::to_string).collect();
    assert_eq!(text.len(), 1);
    assert!(
        text[0].starts_with("/nonexistent/topology.toml: cannot be read: "),
        "{text:?}"
    );
}

/// Values to put where they do not belong.
const ODD_VALUES: [&str; 12] = [
    "1",
    "-1",
    "1.5",
    "99999999999999999999",
    "true",
    "\"\"",
    "\"x\"",
    "\"${X}\"",
    "[]",
    "[1]",
    "{}",
    "2026-01-01",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is done to lines and values of a good file, there is an answer, and it is about the file: the text
    /// types accept everything the schema lets through.
    #[test]
    fn no_edit_of_a_file_panics_or_slips_through_the_schema(
        edits in prop::collection::vec((0usize..400, 0usize..14, any::<prop::sample::Index>()), 1..6)
    ) {
        let text = read("topology.toml");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (line, edit, index) in edits {
            let line = line % lines.len();
            match (edit, lines[line].split_once(" = ")) {
                (12, _) => { lines.remove(line); }
                (13, _) => {
                    let cut = index.index(lines[line].chars().count().max(1));
                    lines[line] = lines[line].chars().skip(cut).collect();
                }
                (edit, Some((key, _))) => lines[line] = format!("{key} = {}", ODD_VALUES[edit]),
                (_, None) => {}
            }
        }
        for problem in problems_of(&lines.join("\n")) {
            prop_assert!(!problem.contains("please report this"), "{problem}\n{}", lines.join("\n"));
        }
    }

    #[test]
    fn any_text_gets_problems_that_lie_inside_it(text in "(?s).{0,200}") {
        for text in [text.clone(), format!("application_id = \'\'\'{text}\'\'\'")] {
            let found = config::parse("t.toml", &text, &unset).expect_err("no sources");
            for problem in found {
                let line = text.split('\n').nth(problem.line - 1).unwrap_or_default();
                prop_assert!(problem.column <= line.chars().count() + 1, "{problem}");
            }
        }
    }
}
