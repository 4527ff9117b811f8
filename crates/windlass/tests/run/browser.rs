//! A headless Chromium, driven by the DevTools protocol over a pair of pipes, where one is installed.
//!
//! Source: Chrome DevTools protocol 1.3; `--remote-debugging-pipe` reads from descriptor 3, writes to 4, and ends each
//! message with a zero byte.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value as Json, json};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(60);
/// Names under which it is installed.
const PROGRAMS: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// A running browser; killed when dropped.
pub(crate) struct Browser {
    child: Child,
    requests: File,
    answers: Receiver<Json>,
    next: u64,
    /// Everything it said that was no answer.
    pub(crate) events: Vec<Json>,
}

/// One of its pages.
#[derive(Clone)]
pub(crate) struct Page(String);

impl Browser {
    /// Starts one with its files in a folder; says loudly that `test` is skipped where none is installed.
    pub(crate) fn start(test: &str, folder: &Path) -> Option<Browser> {
        let installed = |name: &&str| {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|path| path.join(name).exists())
        };
        let Some(program) = PROGRAMS.into_iter().find(|name| installed(name)) else {
            windlass_testkit::tools::skipped(test, &format!("neither of {} is installed", PROGRAMS.join(", ")));
            return None;
        };
        let pipe = |name: &str| -> PathBuf {
            let path = folder.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
            path
        };
        let (inward, outward) = (pipe("browser.in"), pipe("browser.out"));
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$INWARD\" 4>\"$OUTWARD\"", program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", folder.join("browser").display()))
            .env("INWARD", &inward)
            .env("OUTWARD", &outward)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be started");
        let requests = File::options().write(true).open(inward).expect("a pipe");
        let answers = File::open(outward).expect("a pipe");
        let (say, said) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let Ok(message) = message else { return };
                let message = serde_json::from_slice(&message).expect("it speaks JSON");
                if say.send(message).is_err() {
                    return;
                }
            }
        });
        Some(Browser { child, requests, answers: said, next: 0, events: Vec::new() })
    }

    /// A new page that shows nothing.
    pub(crate) fn page(&mut self) -> Page {
        let target = self.ask(None, "Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.ask(None, "Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        let page = Page(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Network", "Runtime", "Log"] {
            self.call(&page, &format!("{domain}.enable"), json!({}));
        }
        page
    }

    /// A call about a page.
    #[track_caller]
    pub(crate) fn call(&mut self, page: &Page, method: &str, params: Json) -> Json {
        self.ask(Some(page), method, params)
    }

    /// What an expression is worth in a page.
    #[track_caller]
    pub(crate) fn value(&mut self, page: &Page, expression: &str) -> Json {
        let answer = self.call(page, "Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        answer["result"]["value"].clone()
    }

    /// Every address that was asked for, by its kind.
    pub(crate) fn requested(&self, kind: Option<&str>) -> Vec<String> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let wanted = requests.filter(|event| kind.is_none_or(|kind| event["params"]["type"] == kind));
        wanted.filter_map(|event| event["params"]["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn ask(&mut self, page: Option<&Page>, method: &str, params: Json) -> Json {
        self.try_ask(page, method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The document as it is now; empty while another one takes its place.
    pub(crate) fn html(&mut self, page: &Page) -> String {
        let root = self.try_ask(Some(page), "DOM.getDocument", json!({ "depth": 0 }));
        let html = root.and_then(|root| {
            let node = root["root"]["nodeId"].clone();
            self.try_ask(Some(page), "DOM.getOuterHTML", json!({ "nodeId": node }))
        });
        html.map_or_else(|_| String::new(), |html| html["outerHTML"].as_str().unwrap_or_default().to_owned())
    }

    fn try_ask(&mut self, page: Option<&Page>, method: &str, params: Json) -> Result<Json, Json> {
        self.next += 1;
        let mut request = json!({ "id": self.next, "method": method, "params": params });
        if let Some(Page(session)) = page {
            request["sessionId"] = session.as_str().into();
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests.write_all(&bytes).expect("it reads");
        loop {
            let message = self.answers.recv_timeout(LIMIT).expect("it answers");
            if message["id"] == self.next {
                return if message["error"].is_null() { Ok(message["result"].clone()) } else { Err(message) };
            }
            self.events.push(message);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
