//! What the documentation shows is what the program takes.

use accrue::codec::{Incoming, source};
use accrue::revenue::books::Books;
use accrue::revenue::reference::Settings;

const EVENTS: &str = "docs/events.md";

/// The fenced blocks of a language, each with the line it begins on.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut inside, mut wanted) = (false, false);
    for (n, line) in text.lines().enumerate() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            wanted = inside && fence.split_whitespace().next() == Some(language);
            if wanted {
                found.push((n + 2, String::new()));
            }
        } else if let (true, Some((_, block))) = (wanted, found.last_mut()) {
            *block += &format!("{line}\n");
        }
    }
    found
}

#[test]
fn every_event_that_is_shown_is_a_valid_fact() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(EVENTS);
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{EVENTS}: {error}"));
    let blocks = blocks(&text, "json");
    assert!(blocks.len() >= 10, "{EVENTS} has {} blocks of JSON", blocks.len());
    let mut wrong = Vec::new();
    let mut facts = Vec::new();
    for (line, block) in blocks {
        let incoming = Incoming {
            topic: "deal.events",
            partition: 0,
            offset: 0,
            key: None,
            value: Some(block.as_bytes()),
            headers: &[],
        };
        match source::fact(&incoming, &Settings::default()) {
            Ok(fact) => {
                wrong.extend(fact.validate().err().map(|why| format!("{EVENTS}:{line}: {why}")));
                facts.push(fact);
            }
            Err(why) => wrong.push(format!("{EVENTS}:{line}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Together they are one history, as the page says.
    facts.sort_by_key(|fact| fact.occurred_at);
    let mut books = Books::new(Settings::default());
    facts.into_iter().for_each(|fact| books.fold(fact));
    assert_eq!(books.finish(None).rejections, Vec::new());
}
