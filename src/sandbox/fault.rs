//! How a double misbehaves: as asked, or by a seed.
//!
//! Owns: the faults, and which request meets which. Invariant: the choice follows from the scripts, the seed and the
//! number of the write, never from a clock.

use serde::Deserialize;

use super::room::Kind;

/// One way to misbehave.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Carries the request out and never answers.
    CommitThenHang,
    /// Never answers, and carries the request out after this time of the sandbox's clock: the client has long gone.
    HangThenCommit { after_seconds: u64 },
    /// Neither answers nor does anything.
    Hang,
    /// Does nothing; asks for patience.
    Throttle { retry_after_seconds: u64 },
    /// Does nothing; answers with this status and words of a proxy.
    Fail { status: u16 },
    /// Carries the request out, and a proxy answers with this status.
    CommitThenFail { status: u16 },
    /// Carries the request out; the answer is broken.
    CommitThenGarbage { garbage: Garbage },
    /// Carries the request out twice, as when a proxy repeats it.
    Twice,
    /// Forgets every access token first.
    ExpireTokens,
    /// Does nothing; refuses with an error that repeats the request's headers.
    RepeatSecrets,
    /// Does nothing; answers just this: any other documented answer.
    Answer { status: u16, body: serde_json::Value },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garbage {
    Empty,
    Html,
    Truncated,
    /// JSON of the wrong shape.
    Shape,
    /// JSON a hundred thousand levels deep.
    Deep,
    /// Longer than anyone reads.
    Huge,
}

/// A fault for the next requests of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub fault: Fault,
    pub on: Kind,
    /// How many requests pass first.
    pub skip: u32,
    /// How many requests meet it.
    pub times: u32,
}

impl Script {
    /// For the next write.
    pub fn once(fault: Fault) -> Script {
        Script {
            fault,
            on: Kind::Write,
            skip: 0,
            times: 1,
        }
    }

    /// Reads the body of `POST /NAME/_sandbox/faults`: a fault, with `on`, `skip` and `times` beside it.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn parse(bytes: &[u8]) -> Result<Script, String> {
        let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let fields = value
            .as_object_mut()
            .ok_or("write an object such as {\"fault\": \"commit_then_hang\"}")?;
        let mut count = |name: &str, default: u32| match fields.remove(name) {
            None => Ok(default),
            Some(given) => given
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .ok_or(format!("{name}: write a count")),
        };
        let (skip, times) = (count("skip", 0)?, count("times", 1)?);
        let on = match fields.remove("on").as_ref().map(|on| on.as_str().unwrap_or_default()) {
            None | Some("write") => Kind::Write,
            Some("read") => Kind::Read,
            Some("token") => Kind::Token,
            Some(_) => return Err("on: write \"write\", \"read\" or \"token\"".to_owned()),
        };
        let fault = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Script { fault, on, skip, times })
    }
}

/// Which request meets which fault.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    scripts: Vec<Script>,
    seed: u64,
    per_thousand: u32,
    writes: u64,
}

impl Plan {
    /// Misbehaves at so many of a thousand writes, chosen by the seed.
    pub fn seeded(seed: u64, per_thousand: u32) -> Plan {
        Plan {
            seed,
            per_thousand,
            ..Plan::default()
        }
    }

    pub fn add(&mut self, script: Script) {
        self.scripts.push(script);
    }

    /// The fault that the next request of this kind meets.
    pub fn next(&mut self, kind: Kind) -> Option<Fault> {
        let found = self
            .scripts
            .iter()
            .position(|script| script.on == kind && script.times > 0);
        if let Some(at) = found {
            let script = &mut self.scripts[at];
            if script.skip > 0 {
                script.skip -= 1;
                return None;
            }
            script.times -= 1;
            let fault = script.fault.clone();
            self.scripts.retain(|script| script.times > 0);
            return Some(fault);
        }
        if kind != Kind::Write || self.per_thousand == 0 {
            return None;
        }
        self.writes += 1;
        let chance = mix(self.seed, self.writes);
        (chance % 1000 < u64::from(self.per_thousand)).then(|| any((chance / 1000) % 9))
    }
}

fn any(number: u64) -> Fault {
    match number {
        0 => Fault::CommitThenHang,
        1 => Fault::HangThenCommit { after_seconds: 120 },
        2 => Fault::Hang,
        3 => Fault::Throttle { retry_after_seconds: 1 },
        4 => Fault::Fail { status: 503 },
        5 => Fault::CommitThenFail { status: 502 },
        6 => Fault::CommitThenGarbage { garbage: Garbage::Html },
        7 => Fault::CommitThenGarbage {
            garbage: Garbage::Truncated,
        },
        _ => Fault::ExpireTokens,
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_come_in_order_and_end() {
        let mut plan = Plan::default();
        plan.add(Script {
            skip: 1,
            times: 2,
            ..Script::once(Fault::Hang)
        });
        plan.add(Script::once(Fault::Twice));
        let met: Vec<_> = (0..5).map(|_| plan.next(Kind::Write)).collect();
        assert_eq!(
            met,
            [None, Some(Fault::Hang), Some(Fault::Hang), Some(Fault::Twice), None]
        );
        assert_eq!(plan.next(Kind::Read), None);
    }

    #[test]
    fn a_seed_repeats_itself_and_keeps_its_rate() {
        let faults = |seed| {
            let mut plan = Plan::seeded(seed, 100);
            (0..2000).map(|_| plan.next(Kind::Write)).collect::<Vec<_>>()
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
        let met = faults(7).into_iter().flatten().count();
        assert!((150..250).contains(&met), "{met}");
    }

    #[test]
    fn a_script_is_read_or_explained() {
        let script = Script::parse(br#"{"fault":"throttle","retry_after_seconds":3,"times":2,"on":"read"}"#).unwrap();
        assert_eq!((script.on, script.times), (Kind::Read, 2));
        assert_eq!(script.fault, Fault::Throttle { retry_after_seconds: 3 });
        for text in [
            "[]",
            r#"{"fault":"sulk"}"#,
            r#"{"fault":"hang","times":-1}"#,
            r#"{"fault":"hang","on":"x"}"#,
        ] {
            assert!(Script::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
