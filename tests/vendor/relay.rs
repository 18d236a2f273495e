//! A real Tryton behind the sandbox's address, so that single requests to it meet faults as those to a double do.

use std::time::Duration;

use accrue::sandbox::Posted;
use accrue::sandbox::room::{Kind, Limits, Request, Response, Settings, Vendor};

/// Passes every request on.
pub struct Relay {
    url: String,
}

impl Relay {
    pub fn new(url: &str) -> Relay {
        Relay {
            url: url.trim_end_matches('/').to_owned(),
        }
    }

    async fn pass_on(&self, request: &Request) -> Result<Response, reqwest::Error> {
        let method = request.method.parse().expect("a method");
        let mut passed = reqwest::Client::new().request(method, format!("{}/{}", self.url, request.path));
        for name in ["authorization", "content-type", "accept"] {
            if !request.header(name).is_empty() {
                passed = passed.header(name, request.header(name));
            }
        }
        let answer = passed.body(request.body.clone()).send().await?;
        Ok(Response {
            status: answer.status().as_u16(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: answer.bytes().await?.to_vec(),
        })
    }
}

impl Vendor for Relay {
    fn name(&self) -> &'static str {
        "tryton"
    }

    fn kind(&self, request: &Request) -> Kind {
        let method = request.json()["method"].as_str().unwrap_or_default().to_owned();
        let of_documents = ["model.account.move.", "model.account.invoice."]
            .iter()
            .find_map(|model| method.strip_prefix(model));
        match of_documents {
            Some("create" | "post" | "delete") => Kind::Write,
            Some(_) | None => Kind::Read,
        }
    }

    fn handle(&mut self, request: &Request, _now: Duration) -> Response {
        // On a thread and a runtime of its own: the sandbox's threads may all wait for this one's end.
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(self.pass_on(request))
            });
            asked.join().expect("no panic")
        });
        answer.unwrap_or_else(|error| panic!("Tryton does not answer: {error}"))
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn documents(&self) -> Vec<Posted> {
        Vec::new()
    }

    fn expire_tokens(&mut self) {}

    fn set(&mut self, _settings: &Settings) {}
}
