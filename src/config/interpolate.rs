//! `${VAR}`, `${VAR:-text}` and `${file:/path}` inside the strings of a topology file.
//!
//! The only way a value from outside reaches the configuration. Invariant: an error names the variable or the file,
//! never what it holds. Absent on purpose: nesting, commands, and substitution outside of strings.

use std::fs::File;
use std::io::Read;

/// A file named by `${file:...}` holds one secret; more than this is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Replaces every `${...}` of `text`. `$${` stands for a plain `${`.
///
/// * `${NAME}`: the variable; an error when it is not set.
/// * `${NAME:-text}`: the variable, or `text` when it is not set or empty.
/// * `${file:/path}`: the content of the file, less its final line break.
pub(super) fn interpolate(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = from.find('}') else {
            return Err(format!(
                "\"{from}\" is not closed; write ${{NAME}}, or $${{ for the text ${{"
            ));
        };
        out.push_str(&resolve(&from[2..end], env)?);
        rest = &from[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Does this string take anything from outside?
pub(super) fn is_interpolated(text: &str) -> bool {
    text.contains("${")
}

fn resolve(expression: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if let Some(path) = expression.strip_prefix("file:") {
        return read(path).map_err(|reason| format!("cannot read {path}: {reason}"));
    }
    let (name, fallback) = match expression.split_once(":-") {
        Some((name, fallback)) => (name, Some(fallback)),
        None => (expression, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "\"${{{expression}}}\" names no variable; write ${{NAME}}, ${{NAME:-text}} or ${{file:/path}}"
        ));
    }
    match (env(name), fallback) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(fallback)) => Ok(fallback.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; set it, or write ${{{name}:-text}} to give a default"
        )),
    }
}

fn read(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err("the path must start with /".to_owned());
    }
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let mut limited = file.take(MAX_FILE_BYTES + 1);
    limited.read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it is longer than {MAX_FILE_BYTES} bytes"));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("kafka".to_owned()),
            "_P1" => Some("9092".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_escapes() {
        for (written, expected) in [
            ("plain $ } {text}", "plain $ } {text}"),
            ("${HOST}:${_P1}", "kafka:9092"),
            ("${HOST:-other}", "kafka"),
            ("${EMPTY:-other}", "other"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:-b}", "a:-b"),
            ("${EMPTY}", ""),
            ("$${HOST}", "${HOST}"),
            ("a$${b${HOST}", "a${bkafka"),
            // What a variable holds is not looked into again.
            ("${TRICKY}", "${HOST}"),
        ] {
            assert_eq!(interpolate(written, &env).as_deref(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (written, expected) in [
            ("${UNSET}", "variable UNSET is not set; set it, or write ${UNSET:-text}"),
            ("x${HOST", "\"${HOST\" is not closed"),
            ("${}", "names no variable"),
            ("${a b}", "names no variable"),
            ("${1A}", "names no variable"),
            ("${file:etc/x}", "cannot read etc/x: the path must start with /"),
            ("${file:/}", "cannot read /: it is not a regular file"),
        ] {
            let message = interpolate(written, &env).expect_err(written);
            assert!(message.contains(expected), "{written}: {message}");
        }
    }
}
